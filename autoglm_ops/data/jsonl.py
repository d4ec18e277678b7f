"""JSON Lines: one object a line, UTF-8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autoglm_ops.data.fields import to_row
from autoglm_ops.data.lines import Line, lines
from autoglm_ops.data.rows import BadLineError, Reject, Row, Shape, raw_text
from autoglm_ops.data.strict import parse
from autoglm_ops.errors import BadData


def read(path: Path, name: str, shape: Shape) -> Iterator[Row | Reject]:
    """Rows of `path`. Raises BadData when the file is empty, or when no line has the needed columns."""
    accepted = missing = 0
    for line in lines(path, name):
        try:
            item: Row | Reject = _row(line, name, shape)
            accepted += 1
        except BadLineError as error:
            item = Reject(name, line.number, str(error), raw_text(line.raw))
            missing += item.reason == "missing-column"
        yield item
    if missing and not accepted:
        wanted = f"{shape.columns['text']!r} and {shape.columns['label']!r}"
        raise BadData(
            f"{name}: none of its {missing} objects has both {wanted}; name its columns in params.yaml, data.columns",
            ("missing-column",),
        )


def _row(line: Line, name: str, shape: Shape) -> Row:
    """A last line without LF is whole when its object is: JSON objects end themselves. Anything else there was cut off."""
    if not line.fits:
        raise BadLineError("too-long")
    try:
        record = parse(line.raw)
    except BadLineError as error:
        if not line.ended and str(error) in ("bad-json", "bad-utf8"):
            raise BadLineError("truncated") from error
        raise
    return to_row(record, shape, name, line.number)
