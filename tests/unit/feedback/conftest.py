"""Patches and signals to test with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoglm_ops.contracts.feedback import SearchSpacePatch, Signal


@pytest.fixture
def make_patch() -> Callable[..., SearchSpacePatch]:
    def make(**changes: Any) -> SearchSpacePatch:
        base = {"key": "train.epochs", "old": 3.0, "new": 3.6, "signal": "quality", "reason": "why", "evidence": {}}
        return SearchSpacePatch(**(base | {"created": "2026-01-05", "expires": "2026-01-12"} | changes))

    return make


@pytest.fixture
def make_signal() -> Callable[..., Signal]:
    def make(name: str, fired: bool = True, value: float = 0.5) -> Signal:
        fields = {"name": name, "fired": fired, "value": value, "threshold": 0.7, "low": value, "high": value, "rows": 300}
        return Signal.model_validate({**fields, "window": ("2026-01-04", "2026-01-04"), "reason": f"{name}: measured"})

    return make
