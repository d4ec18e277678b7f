"""One S3 server for all contract tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3_server import serve_s3


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`s3://bucket` on a real server."""
    with serve_s3(tmp_path_factory.mktemp("s3")) as bucket:
        yield bucket
