"""The dataset of a run: which files it is, their digests, their rows and the days they span.

`path` is a JSONL, CSV or Parquet file, or a folder of them; None is the bundled dataset.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

from autoglm_ops.catalog import Catalog
from autoglm_ops.contracts.data import SourceFile, SourceManifest
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.data import bundled
from autoglm_ops.data.fields import is_day
from autoglm_ops.data.rows import Reject, Row, Shape
from autoglm_ops.errors import BadData, Tampered

log = logging.getLogger(__name__)

READERS = Catalog(
    "data file format",
    {
        ".jsonl": "autoglm_ops.data.jsonl:read",
        ".csv": "autoglm_ops.data.csvfile:read",
        ".parquet": "autoglm_ops.data.parquet:read",
    },
    group="autoglm_ops.readers",
)


def resolve(path: str | None, origin: Path) -> Path | None:
    """`data.path` as a place on this machine: relative ones count from the user's checkout, not from a run's workspace."""
    return None if path is None else (origin / Path(path).expanduser())


def manifest(path: Path | None) -> SourceManifest:
    """The dataset's files by name, size and sha256. Raises BadData when there are none."""
    return SourceManifest(
        kind=bundled.KIND if path is None else "files",
        files=tuple(SourceFile(name=name, sha256=digest_path(file), size=file.stat().st_size) for name, file in _files(path)),
    )


def check(recorded: SourceManifest, path: Path | None) -> None:
    """Raises Tampered when the files are not those of the snapshot."""
    now = {file.name: file for file in manifest(path).files}
    then = {file.name: file for file in recorded.files}
    for name in sorted(now.keys() | then.keys()):
        if now.get(name) != then.get(name):
            what = "is gone" if name not in now else "is new" if name not in then else "has changed"
            raise Tampered(
                f"{name} {what} since inputs/source.json was written; run `autoglm snapshot` to start from the data as it is now"
            )


def read(path: Path | None, shape: Shape, days: int) -> Iterator[Row | Reject]:
    """Every row and every rejected line, in file order. Raises BadData for a file that is empty or of another shape."""
    if path is None:
        yield from bundled.read(shape, days)
        return
    for name, file in _files(path):
        yield from READERS.get(file.suffix.lower())(file, name, shape)


def days(path: Path | None, epoch: date, days: int, columns: Mapping[str, str]) -> tuple[str, str]:
    """The first and the last ISO day of the dataset. Nothing is read for the bundled one; others are read through once."""
    if path is None:
        return epoch.isoformat(), (epoch + timedelta(days=days - 1)).isoformat()
    rows = (item for item in read(path, Shape(columns, epoch), days) if isinstance(item, Row))
    known = {row.timestamp for row in rows if is_day(row.timestamp)}
    if not known:
        raise BadData(f"{path.name} has no row with a valid timestamp; use ISO dates such as 2026-01-31", ("bad-timestamp",))
    return min(known), max(known)


def _files(path: Path | None) -> list[tuple[str, Path]]:
    """Name (relative to the dataset's root) and place of each file, sorted by name."""
    if path is None:
        place = bundled.folder()
        return [(f"{bundled.KIND}/{label}.txt", place / f"{label}.txt") for label in bundled.LABELS]
    if path.is_file():
        READERS.get(path.suffix.lower())
        return [(path.name, path)]
    if not path.is_dir():
        raise BadData(
            f"data.path {str(path)!r} does not exist; name a JSONL, CSV or Parquet file or a folder of them", ("no-such-file",)
        )
    return _folder(path)


def _folder(path: Path) -> list[tuple[str, Path]]:
    known = READERS.names()
    inside = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    chosen = [(name, file) for name, file in inside if file.suffix.lower() in known and not _hidden(name)]
    if ignored := len(inside) - len(chosen):
        log.warning("%s: %d files are of no known format (%s) and are left alone", path.name, ignored, ", ".join(known))
    if not chosen:
        raise BadData(f"data.path {str(path)!r} holds no file of a known format ({', '.join(known)})", ("empty-file",))
    return chosen


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
