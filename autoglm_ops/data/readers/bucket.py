"""Objects of an S3 bucket, read in ranges: each is asked for again until it came whole, and must be of the object that was listed."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from autoglm_ops.data.readers.blocks import BLOCK, Stream
from autoglm_ops.data.readers.limits import Limits
from autoglm_ops.data.readers.names import CARDS, kind_of
from autoglm_ops.data.readers.shards import Blob, Part

if TYPE_CHECKING:
    from autoglm_ops.store.ranges import BucketReader, Listed

log = logging.getLogger(__name__)


class Bucket:
    """`s3://bucket`, `s3://bucket/folder` or `s3://bucket/key`. The endpoint and the keys come from the environment (store.s3)."""

    def __init__(self, location: str, limits: Limits) -> None:
        from autoglm_ops.store.s3 import open_reader

        bucket, _, prefix = location.partition("://")[2].partition("/")
        self._prefix = prefix.strip("/")
        self._reader = open_reader(bucket, limits.requests)

    def blobs(self) -> Iterator[Blob]:
        """`version` is the ETag. Of a Hugging Face dataset only data/ is given, as of a folder."""
        found = list(self._listed())
        names = {blob.name for blob in found}
        data = [blob for blob in found if blob.name.startswith("data/")]
        if data and names.intersection(CARDS):
            log.info("%s looks like a Hugging Face dataset: only its data/ is read", self._prefix or "the bucket")
            found = data
        yield from found

    def _listed(self) -> Iterator[Blob]:
        """Keys that end in a slash are what consoles make for empty folders."""
        for item in self._reader.listing(self._prefix):
            if item.key == self._prefix:
                yield Blob(item.key.rpartition("/")[2], item.size, item.tag)
            elif not item.key.endswith("/") and (not self._prefix or item.key.startswith(f"{self._prefix}/")):
                yield Blob(item.key.removeprefix(f"{self._prefix}/"), item.size, item.tag)

    def identified(self, blob: Blob) -> Blob:
        return blob

    @contextmanager
    def opened(self, part: Part) -> Iterator[Stream]:
        """Plain lines are read in the sizes their reader asks for; the rest through a buffer of one block."""
        from autoglm_ops.store.ranges import Listed

        kind = kind_of(part.blob.name)
        item = Listed(self._key(part.blob.name), part.blob.size, part.blob.version)
        raw = _Object(self._reader, item)
        raw.seek(max(part.start - 1, 0))
        yield cast(Stream, raw if kind and kind.cuttable else io.BufferedReader(raw, BLOCK))

    def _key(self, name: str) -> str:
        """The location may be the object itself, which a listing then gives first."""
        if self._prefix.rpartition("/")[2] == name:
            first = next(iter(self._reader.listing(self._prefix)), None)
            if first and first.key == self._prefix:
                return first.key
        return f"{self._prefix}/{name}" if self._prefix else name


class _Object(io.RawIOBase):
    """An object as a file: every read is one request."""

    def __init__(self, reader: BucketReader, item: Listed) -> None:
        self._reader, self._item, self._at = reader, item, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._item.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._item.size)
        if stop <= self._at:
            return 0
        body = self._reader.read(self._item, self._at, stop)
        buffer[: len(body)] = body
        self._at = stop
        return len(body)
