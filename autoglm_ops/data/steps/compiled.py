"""Compiled loops over a column's bytes: the decorator, the column as arrays and back, and the integer mixer all hashes share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

import numba
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function` as machine code, kept on disk between processes; one thread, and division by zero gives inf or nan as in numpy."""
    done: Callable[P, R] = numba.njit(cache=True, error_model="numpy")(function)
    return done


class Flat(NamedTuple):
    """A column of texts end to end: `data` uint8 (UTF-8), `offsets` int64 (rows + 1). Both are read-only, so one compilation serves."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]


def flat(texts: pl.Series) -> Flat:
    """The column's own buffers, without a copy where polars allows. A null is an empty text."""
    array = texts.fill_null("").rechunk().to_arrow().cast(pa.large_string())
    _, offsets, data = array.buffers()
    rows = np.frombuffer(offsets, np.int64, len(array) + 1, 8 * array.offset) if len(array) else np.zeros(1, np.int64)
    rows.flags.writeable = False
    return Flat(np.frombuffer(data or b"", np.uint8), rows)


def unflat(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> pl.Series:
    """The texts in `data` (valid UTF-8), one between each two offsets."""
    array = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))
    return pl.Series(array, dtype=pl.String)


@compiled
def mix(value: np.uint64) -> np.uint64:
    """A bijection of 64 bits in which each bit of the result hangs on all of `value` (splitmix64's finaliser, Steele et al. 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
