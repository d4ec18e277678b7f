"""No test leaves the process other than it found it: environment and signal handlers are put back.

All processes of a test session share their compiled loops: each would compile the readers' anew, for a dozen seconds of a core.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("shared", deadline=None)  # a suite that times examples fails on a busy machine
settings.load_profile("shared")

os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".autoglm" / "cache" / "numba"))
os.environ.setdefault("NUMBA_CACHE_LOCATOR_CLASSES", "autoglm_ops.data.kernels.BySource")

HANDLED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def _put_back() -> Iterator[None]:
    environment, handlers = dict(os.environ), {number: signal.getsignal(number) for number in HANDLED}
    yield
    os.environ.clear()
    os.environ.update(environment)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True, scope="module")
def _module_leaves_nothing_behind() -> Iterator[None]:
    with _put_back():
        yield


@pytest.fixture(autouse=True)
def _test_leaves_nothing_behind() -> Iterator[None]:
    with _put_back():
        yield
