"""The safetensors format: its header read with suspicion before any library does (threats F12), and a file of it written. numpy alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.errors import Tampered

MAX_HEADER = 100 << 20
WIDTHS = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
}


class Stored(NamedTuple):
    """A tensor as the file holds it: its dtype's name there, its shape, its bytes."""

    dtype: str
    shape: tuple[int, ...]
    raw: NDArray[np.uint8]


def header(tensors: Mapping[str, Stored]) -> bytes:
    """What a safetensors file begins with; the tensors' bytes follow in the order of `tensors`. Raises ValueError on a wrong size."""
    entries, at = {}, 0
    for name, (dtype, shape, raw) in tensors.items():
        if raw.size != math.prod(shape) * WIDTHS[dtype]:
            raise ValueError(f"{name!r} of shape {shape} and dtype {dtype} is not {raw.size} bytes")
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + raw.size]}
        at += raw.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format's own padding
    return len(text).to_bytes(8, "little") + text


def read_header(name: str, content: bytes) -> list[tuple[str, str, int, int]]:
    """(tensor, dtype, first byte, end byte) of each tensor. Raises Tampered unless they tile the file exactly, in shape and size."""
    size = int.from_bytes(content[:8], "little") if len(content) >= 8 else -1
    if not 2 <= size <= min(MAX_HEADER, len(content) - 8):
        raise Tampered(f"{name} is not safetensors: its header claims {size} of {len(content)} bytes")
    try:
        header = json.loads(content[8 : 8 + size])
        entries = sorted(
            (_entry(key, value) for key, value in header.items() if key != "__metadata__"), key=lambda entry: entry[2:]
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Tampered(f"{name} is not safetensors: its header cannot be read ({type(error).__name__}: {error})") from error
    base, at = 8 + size, 0
    for tensor, _, start, end in entries:
        if start != at:
            raise Tampered(
                f"{name}: tensor {tensor!r} starts at byte {start} where {at} is due; the file has holes or overlaps"
            )
        at = end
    if base + at != len(content):
        raise Tampered(
            f"{name}: tensors end at byte {base + at} of {len(content)}; the file is cut off or has something behind it"
        )
    return [(tensor, dtype, base + start, base + end) for tensor, dtype, start, end in entries]


def _entry(tensor: str, value: dict[str, Any]) -> tuple[str, str, int, int]:
    start, end = value["data_offsets"]
    shape, dtype = value["shape"], value["dtype"]
    whole = all(type(number) is int and number >= 0 for number in (start, end, *shape))
    if not whole or end - start != math.prod(shape) * WIDTHS[dtype]:
        raise ValueError(f"{tensor!r} of shape {shape} and dtype {dtype} does not fill bytes {start} to {end}")
    return tensor, dtype, start, end


def finite(raw: NDArray[np.uint8], dtype: str) -> bool:
    """Whether every value is a number. `raw` are a tensor's bytes."""
    if dtype == "BF16":  # the upper half of an fp32: all exponent bits set means NaN or infinite
        return not bool(((raw.view(np.uint16) & 0x7F80) == 0x7F80).any())
    kinds = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
    # frombuffer may hand out unaligned bytes, which view() takes and numpy reads correctly
    return dtype not in kinds or bool(np.isfinite(raw.view(kinds[dtype])).all())
