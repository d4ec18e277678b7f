"""Plain text as frames: a document a line, or a document a file (`Limits.document`)."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from autoglm_ops.data.readers.blocks import Block, Opened, TruncatedError, judged_blocks
from autoglm_ops.data.readers.frames import frame_of
from autoglm_ops.data.readers.limits import Rejected
from autoglm_ops.data.rows import BadLineError, Row, row_id
from autoglm_ops.errors import BadData


def read(source: Opened) -> Iterator[pl.DataFrame | Rejected]:
    """Frames of DOCUMENT without labels, and what was rejected. An empty line is a document with an empty text: steps judge texts.

    A last line without LF may be half of one, and is rejected as truncated. Raises BadData when the file is empty.
    """
    if source.limits.document == "file":
        yield from _whole(source)
        return
    yield from judged_blocks(source, _judge)


def _judge(block: Block, source: Opened) -> tuple[pl.DataFrame, list[Rejected]]:
    rows: list[Row] = []
    rejects: list[Rejected] = []
    offset = block.offset
    raws = block.data.split(b"\n")
    torn = raws.pop()
    for number, raw in enumerate(raws, start=block.line):
        place = offset if source.cut else number
        try:
            rows.append(_row(_text(raw.removesuffix(b"\r"), source), place, offset, source))
        except BadLineError as error:
            rejects.append(Rejected.of(source.name, place, offset, str(error), raw))
        offset += len(raw) + 1
    if torn:
        place = offset if source.cut else block.line + len(raws)
        rejects.append(Rejected.of(source.name, place, offset, "truncated", torn))
    return frame_of(rows), rejects


def _row(text: str, place: int, offset: int, source: Opened) -> Row:
    return Row(row_id(source.name, offset), text, None, source.shape.epoch.isoformat(), source.name, place)


def _text(raw: bytes, source: Opened) -> str:
    if len(raw) > source.limits.line:
        raise BadLineError("too-long")
    if b"\0" in raw:
        raise BadLineError("nul-character")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLineError("bad-utf8") from error


def _whole(source: Opened) -> Iterator[pl.DataFrame | Rejected]:
    """The file as one document of at most `Limits.line` bytes."""
    raw = b""
    try:
        while len(raw) <= source.limits.line and (piece := source.stream.read(1 << 20)):
            raw += piece
        if not raw:
            raise BadData(f"{source.name} is empty (0 bytes); give a file with at least one row, or remove it", ("empty-file",))
        yield frame_of([_row(_text(raw, source), 1, 0, source)])
    except (BadLineError, TruncatedError) as error:
        reason = "truncated" if isinstance(error, TruncatedError) else str(error)
        yield Rejected.of(source.name, 1, 0, reason, raw)
