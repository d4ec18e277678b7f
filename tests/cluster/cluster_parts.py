"""Where the tests of real clusters find things, and how they wait."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("AUTOGLM_TEST_IMAGE", "")
BARE = os.environ.get("AUTOGLM_BARE_IMAGE", "localhost/pause:1")
HOST = os.environ.get("AUTOGLM_POD_HOST", "10.244.0.1")
"""Where a pod reaches this machine."""
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "BENCH_SECRET")


def wait_for(ask: Callable[[], Any], seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)
    return found
