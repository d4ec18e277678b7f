"""What a location holds: a file or a folder here, an S3 prefix, one URL. A folder may be a Hugging Face dataset's.

Names are relative to the location, so that the same data has the same ids and records wherever it lies.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from autoglm_ops.catalog import Catalog
from autoglm_ops.data.readers.blocks import Stream
from autoglm_ops.data.readers.limits import Limits
from autoglm_ops.data.readers.names import FORMATS, PACKINGS, is_hidden, kind_of
from autoglm_ops.data.readers.shards import Blob, Part
from autoglm_ops.errors import BadData, UsageError

log = logging.getLogger(__name__)
KINDS = Catalog(
    "data location",
    {
        "file": "autoglm_ops.data.readers.folder:Folder",
        "s3": "autoglm_ops.data.readers.bucket:Bucket",
        "http": "autoglm_ops.data.readers.web:Page",
        "https": "autoglm_ops.data.readers.web:Page",
    },
    group="autoglm_ops.data_locations",
)


class Location(Protocol):
    """One kind of place. Made by `kind(location, limits)`; nothing is contacted before it is asked."""

    def blobs(self) -> Iterable[Blob]:
        """Every file, in any order."""
        ...

    def identified(self, blob: Blob) -> Blob:
        """`blob` with its version, where listing did not tell."""
        ...

    def opened(self, part: Part) -> AbstractContextManager[Stream]:
        """The file's bytes from one before `part.start` (or 0). Raises Tampered when it is not as it was listed."""
        ...


class Place(NamedTuple):
    """What lies at a location: the files that can be read, sorted by name, and how many others were left alone."""

    blobs: tuple[Blob, ...]
    ignored: int


def locate(location: str, limits: Limits) -> Location:
    """A path, `s3://bucket/prefix`, or `https://host/path`. Raises UsageError for none of them, and for a scheme nobody serves."""
    if not location.strip():  # to pathlib it is the present folder, whatever lies there
        raise UsageError("the location is empty; name a file, a folder, s3://BUCKET/PREFIX or a URL")
    scheme, separator, _ = location.partition("://")
    found: Location = KINDS.get(scheme.lower() if separator else "file")(location, limits)
    return found


def survey(location: str, limits: Limits) -> Place:
    """The files at `location`. Local ones are read through once, for their sha256.

    Hidden files (a part of the name begins with a dot or an underscore) are left out; files of no known format are counted and said.
    Raises BadData when there is nothing to read or a name cannot stand in a record, and what the location's kind raises.
    """
    place = locate(location, limits)
    seen = [blob for blob in sorted(place.blobs()) if not is_hidden(blob.name)]
    chosen = [_sound(blob) for blob in seen if kind_of(blob.name)]
    known = ", ".join(FORMATS.names())
    if ignored := len(seen) - len(chosen):
        log.warning("%s: %d files are of no known format (%s) and are left alone", _last(location), ignored, known)
    if not chosen:
        raise BadData(
            f"{location!r} holds no file of a known format ({known}; all but Parquet also as {' or '.join(PACKINGS)})",
            ("empty-file",),
        )
    return Place(tuple(place.identified(blob) for blob in chosen), ignored)


def _sound(blob: Blob) -> Blob:
    """Its name must stand in records and logs: one line of UTF-8."""
    if not blob.name.isprintable():
        raise BadData(f"the file name {blob.name!r} is not printable UTF-8; rename the file", ("bad-name",))
    return blob


def _last(location: str) -> str:
    return location.rstrip("/").rpartition("/")[2]
