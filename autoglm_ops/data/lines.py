"""Lines of a file that may be hostile: split on LF bytes alone, in constant memory (threats F03, F04).

`str.splitlines` would also cut at U+2028 and NEL, inside valid JSON strings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from autoglm_ops.errors import BadData

MAX_LINE = 1 << 20
_MARKS = {
    b"\xef\xbb\xbf": "a UTF-8 byte order mark",
    b"\xff\xfe": "a UTF-16 byte order mark",
    b"\xfe\xff": "a UTF-16 byte order mark",
}


class Line(NamedTuple):
    """One physical line without its LF. `ended` is False for a last line that has no LF; `fits` when it is at most MAX_LINE bytes."""

    number: int
    raw: bytes
    ended: bool
    fits: bool


def lines(path: Path, name: str) -> Iterator[Line]:
    """Every line of `path`. Raises BadData when the file is empty or begins with a byte order mark."""
    with path.open("rb") as file:
        _check_start(file, name)
        number = 0
        while chunk := file.readline(MAX_LINE + 1):
            number += 1
            ended = chunk.endswith(b"\n")
            if ended or len(chunk) <= MAX_LINE:
                yield Line(number, chunk[:-1] if ended else chunk, ended, True)
            else:
                yield Line(number, chunk, _skip_rest(file), False)


def _check_start(file: BinaryIO, name: str) -> None:
    start = file.read(3)
    if not start:
        raise BadData(f"{name} is empty (0 bytes); give a file with at least one row", ("empty-file",))
    for mark, what in _MARKS.items():
        if start.startswith(mark):
            raise BadData(f"{name} begins with {what}; save it as UTF-8 without one", ("byte-order-mark",))
    file.seek(0)


def _skip_rest(file: BinaryIO) -> bool:
    """Read on to the end of a line that is too long, keeping nothing. Whether it had an end."""
    while chunk := file.readline(MAX_LINE):
        if chunk.endswith(b"\n"):
            return True
    return False
