"""A shape whose columns are called what we call them."""

from __future__ import annotations

from datetime import date

import pytest

from autoglm_ops.data.rows import Shape


@pytest.fixture(scope="session")
def shape() -> Shape:
    return Shape({name: name for name in ("text", "label", "timestamp", "id", "source")}, date(2026, 1, 1))
