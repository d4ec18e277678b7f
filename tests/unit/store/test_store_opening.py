"""Which store a URI names."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_ops.errors import UsageError
from autoglm_ops.store import open_store
from autoglm_ops.store.local import LocalStore


def test_a_folder_in_three_spellings(tmp_path: Path) -> None:
    for uri, root in (
        (None, tmp_path / "store"),
        (str(tmp_path / "x"), tmp_path / "x"),
        (f"file://{tmp_path}/y", tmp_path / "y"),
    ):
        store = open_store(uri, tmp_path)
        assert isinstance(store, LocalStore) and store.root == root
        assert not root.exists()


def test_an_unknown_scheme_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 's3'"):
        open_store("s33://bucket/x", tmp_path)
    with pytest.raises(UsageError, match="known: file, s3"):
        open_store("gopher://bucket/x", tmp_path)
