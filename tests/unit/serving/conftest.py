"""A server of the two-model shelf, and a client with its key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from serving_parts import ALLOWED, ByLength, Shelf, made, running

from autoglm_ops.serving.app import Parts


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(v1=ByLength(), v2=ByLength(flip=True))


@pytest.fixture
def parts(shelf: Shelf, tmp_path: Path) -> Iterator[Parts]:
    with made(tmp_path, shelf) as parts:
        yield parts


@pytest.fixture
def client(parts: Parts) -> Iterator[httpx.Client]:
    with running(parts) as url, httpx.Client(base_url=url, headers=ALLOWED) as http:
        yield http
