"""Rows as frames of the DOCUMENT schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from autoglm_ops.data.fields import to_row
from autoglm_ops.data.flow import DOCUMENT
from autoglm_ops.data.rows import BadLineError, Row, Shape, row_id

PYTHON_SPACES = "".join(char for char in map(chr, range(0x3001)) if char.isspace())
"""What `str.strip` takes away; Rust's idea of white space lacks U+001C to U+001F."""


def document(record: Mapping[str, Any], shape: Shape, name: str, line: int, document_id: str) -> Row:
    """The document in one record of file `name`, by the rules of `to_row`, except that a label may be missing and a text not be null.

    `document_id` names it when the record does not. Raises BadLineError with the reason word.
    """
    columns = shape.columns
    if columns["text"] in record and record[columns["text"]] is None:
        raise BadLineError("null-text")
    row = to_row({columns["label"]: None, **record}, shape, name, line)
    return row._replace(id=document_id) if row.id == row_id(name, line) else row


def frame_of(rows: Sequence[Row]) -> pl.DataFrame:
    """`rows` in their order."""
    return pl.DataFrame(rows, schema=DOCUMENT, orient="row")
