"""The dataset of a run: which files it is, their digests, their rows and the days they span.

`path` is a file or a folder of any format the engine reads, or a dataset it built; None is the bundled dataset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

from autoglm_ops.contracts.data import SourceFile, SourceManifest
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.data import bundled
from autoglm_ops.data.fields import is_day
from autoglm_ops.data.readers import Blob, Limits, Rejected, plan, survey
from autoglm_ops.data.readers import reading as engine
from autoglm_ops.data.readers.names import kind_of
from autoglm_ops.data.rows import Reject, Row, Shape
from autoglm_ops.errors import BadData, Tampered

WHOLE = 1 << 62  # bytes of a shard: the cycle reads its dataset in one piece


def resolve(path: str | None, origin: Path) -> Path | None:
    """`data.path` as a place on this machine: relative ones count from the user's checkout, not from a run's workspace."""
    return None if path is None else (origin / Path(path).expanduser())


def manifest(path: Path | None) -> SourceManifest:
    """The dataset's files by name, size and sha256. Raises BadData when there are none."""
    if path is None:
        files = ((name, digest_path(file), file.stat().st_size) for name, file in _bundled())
    else:
        files = ((blob.name, blob.version, blob.size) for blob in _blobs(path))
    return SourceManifest(
        kind=bundled.KIND if path is None else "files",
        files=tuple(SourceFile(name=name, sha256=sha256, size=size) for name, sha256, size in files),
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
    rows = labelled = 0
    for shard in plan(_blobs(path), WHOLE):
        for item in engine.read(shard, str(path), shape, Limits()):
            if isinstance(item, Rejected):
                yield Reject(item.source, item.line, item.reason, item.raw)
                continue
            rows, labelled = rows + item.height, labelled + item["label"].count()
            yield from (Row(*values) for values in item.iter_rows())
    if rows and not labelled:
        raise BadData(
            f"{path.name}: none of its {rows} rows has a {shape.columns['label']!r}; name its columns in params.yaml, data.columns",
            ("missing-column",),
        )


def days(path: Path | None, epoch: date, days: int, columns: Mapping[str, str]) -> tuple[str, str]:
    """The first and the last ISO day of the dataset. Nothing is read for the bundled one; others are read through once."""
    if path is None:
        return epoch.isoformat(), (epoch + timedelta(days=days - 1)).isoformat()
    rows = (item for item in read(path, Shape(columns, epoch), days) if isinstance(item, Row))
    known = {row.timestamp for row in rows if is_day(row.timestamp)}
    if not known:
        raise BadData(f"{path.name} has no row with a valid timestamp; use ISO dates such as 2026-01-31", ("bad-timestamp",))
    return min(known), max(known)


def _bundled() -> list[tuple[str, Path]]:
    place = bundled.folder()
    return [(f"{bundled.KIND}/{label}.txt", place / f"{label}.txt") for label in bundled.LABELS]


def _blobs(path: Path) -> list[Blob]:
    """The files that can hold labels: plain text cannot. Raises BadData when there are none."""
    found = [blob for blob in survey(str(path), Limits()).blobs if (kind := kind_of(blob.name)) and kind.form != ".txt"]
    if not found:
        raise BadData(f"{str(path)!r} holds plain text alone; labelled rows come as JSONL, CSV or Parquet", ("empty-file",))
    return found
