"""Code to run, by location: a folder, an archive, or an archive in a bucket; laid down as a plain folder that can be stored."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.store.archive import Limits, unpack

_IGNORED = (".git", ".venv", "__pycache__", ".autoglm", ".dvc", ".mypy_cache", ".pytest_cache", ".ruff_cache")
_RANGE = 8 << 20
_REQUESTS = 1000


def lay_code(location: str, target: Path, limits: Limits | None = None) -> Path:
    """Fill `target`, which must not be there, from `location`: a path, or s3://bucket/key of an archive.

    Raises UsageError when there is nothing, Refused for an archive that breaks a rule and for a folder that is too large or holds
    links, and what the bucket raises.
    """
    if location.startswith("s3://"):
        with tempfile.TemporaryDirectory(prefix="autoglm-code-") as folder:
            return unpack(_fetch(location, Path(folder), limits or Limits()), target, limits)
    path = Path(location)
    if path.is_dir():
        return _copy(path, target, limits or Limits())
    return unpack(path, target, limits)


def _copy(folder: Path, target: Path, limits: Limits) -> Path:
    """Version control, environments and caches stay behind; links are refused, as in an artefact."""
    size = 0
    for files, path in enumerate(_wanted(folder), start=1):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise Refused(f"{path} is a link or a device; code to send is plain files: put a copy in its place", ("link",))
        size += path.stat().st_size
        if files > limits.entries or size > limits.unpacked:
            raise Refused(
                f"{folder} holds more than {limits.entries} files or {limits.unpacked} bytes; send the code alone, and data by its "
                "location",
                ("too-large",),
            )
    shutil.copytree(folder, target, symlinks=True, ignore=shutil.ignore_patterns(*_IGNORED))
    return target


def _wanted(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        if path.name not in _IGNORED:
            found.append(path)
            if path.is_dir() and not path.is_symlink():
                found += _wanted(path)
    return found


def _fetch(location: str, folder: Path, limits: Limits) -> Path:
    from autoglm_ops.store.s3 import open_reader

    bucket, _, key = location.removeprefix("s3://").partition("/")
    reader = open_reader(bucket, _REQUESTS)
    item = next((item for item in reader.listing(key) if item.key == key), None) if key else None
    if item is None:
        raise UsageError(f"{location} is not an object; name a .zip, .tar or .tar.gz in the bucket")
    if item.size > limits.unpacked:
        raise Refused(f"{location} has {item.size} bytes; at most {limits.unpacked} are fetched", ("too-large",))
    path = folder / (key.rpartition("/")[2] or "archive")
    with path.open("wb") as file:
        for start in range(0, item.size, _RANGE):
            file.write(reader.read(item, start, min(start + _RANGE, item.size)))
    return path
