"""What a file's name says of it: its format and its packing. A format is a file and a line here."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NamedTuple

from autoglm_ops.catalog import Catalog

FORMATS = Catalog(
    "data file format",
    {
        ".jsonl": "autoglm_ops.data.readers.jsonl:read",
        ".ndjson": "autoglm_ops.data.readers.jsonl:read",
        ".txt": "autoglm_ops.data.readers.text:read",
        ".csv": "autoglm_ops.data.readers.csvfile:read",
        ".parquet": "autoglm_ops.data.readers.parquet:read",
    },
    group="autoglm_ops.document_readers",
)
CARDS = ("README.md", "dataset_infos.json", "dataset_dict.json", ".gitattributes")  # what the Hub puts beside data/
PACKINGS = (".gz", ".zst")
_CUTTABLE = {".jsonl", ".ndjson", ".txt"}


class Kind(NamedTuple):
    """`form` is a name in FORMATS, `packing` one of PACKINGS or empty."""

    form: str
    packing: str

    @property
    def cuttable(self) -> bool:
        """Whether any line border is a place to start reading."""
        return not self.packing and self.form in _CUTTABLE


def kind_of(name: str) -> Kind | None:
    """The kind of file `name`, None for one that nobody reads."""
    path = PurePosixPath(name.lower())
    packing = path.suffix if path.suffix in PACKINGS else ""
    form = PurePosixPath(path.stem).suffix if packing else path.suffix
    if form not in FORMATS.names() or (packing and form == ".parquet"):
        return None
    return Kind(form, packing)


def is_hidden(name: str) -> bool:
    """Whether a part of the path begins with a dot or an underscore (`_SUCCESS`, `_temporary/`: what Spark and Hive leave)."""
    return any(part.startswith((".", "_")) for part in name.split("/"))
