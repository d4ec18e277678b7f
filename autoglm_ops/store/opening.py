"""Which store a URI names. A kind of store is a file and a line here, or an entry point of another package."""

from __future__ import annotations

from pathlib import Path

from autoglm_ops.catalog import Catalog
from autoglm_ops.contracts.cluster import Store

KINDS = Catalog(
    "store",
    {"file": "autoglm_ops.store.local:open_folder", "s3": "autoglm_ops.store.s3:open_bucket"},
    group="autoglm_ops.stores",
)


def open_store(uri: str | None, home: Path) -> Store:
    """The store at `uri`: a folder, `file:///folder`, `s3://bucket/prefix`, or None for `home/store`. Nothing is contacted yet.

    Raises UsageError for a scheme nobody serves.
    """
    if uri is None:
        uri = str(home / "store")
    scheme, separator, rest = uri.partition("://")
    kind, where = (scheme, rest) if separator else ("file", uri)
    store: Store = KINDS.get(kind)(where)
    return store
