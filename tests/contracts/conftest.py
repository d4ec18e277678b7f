"""One S3 server for all contract tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from s3_server import BUCKET, serve_s3


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
