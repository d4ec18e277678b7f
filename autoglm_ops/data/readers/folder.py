"""Files of this machine: one, or a folder of them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoglm_ops.data.readers.blocks import Stream
from autoglm_ops.data.readers.limits import Limits
from autoglm_ops.data.readers.names import CARDS
from autoglm_ops.data.readers.shards import Blob, Part
from autoglm_ops.errors import BadData, Tampered

log = logging.getLogger(__name__)


class Folder:
    """Links to files are followed (the Hub's cache is made of them), links to folders are not."""

    def __init__(self, location: str, limits: Limits) -> None:
        self._root = Path(location.removeprefix("file://"))

    def blobs(self) -> Iterator[Blob]:
        """Raises BadData when there is no such file or folder."""
        if not self._root.exists():
            raise BadData(
                f"{str(self._root)!r} does not exist; name a file, a folder, s3://BUCKET/PREFIX or a URL", ("no-such-file",)
            )
        if self._root.is_file():
            yield Blob(self._root.name, self._root.stat().st_size, "")
            return
        for path in self._within().rglob("*"):
            if path.is_file():
                yield Blob(path.relative_to(self._root).as_posix(), path.stat().st_size, "")

    def identified(self, blob: Blob) -> Blob:
        """With its sha256."""
        with self._path(blob).open("rb") as file:
            return blob._replace(version=hashlib.file_digest(file, "sha256").hexdigest())

    @contextmanager
    def opened(self, part: Part) -> Iterator[Stream]:
        """The size alone is compared: a part cannot be digested. Who needs more compares versions first."""
        with self._path(part.blob).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != part.blob.size:
                raise Tampered(
                    f"{part.blob.name} has {size} bytes, but had {part.blob.size} when it was listed; list the data again"
                )
            file.seek(max(part.start - 1, 0))
            yield file

    def _path(self, blob: Blob) -> Path:
        return self._root if self._root.is_file() else self._root / blob.name

    def _within(self) -> Path:
        """The folder to list: of a Hugging Face dataset only data/, since its card and notes are no documents."""
        data = self._root / "data"
        if data.is_dir() and any((self._root / card).is_file() for card in CARDS):
            log.info("%s looks like a Hugging Face dataset: only its data/ is read", self._root.name)
            return data
        return self._root
