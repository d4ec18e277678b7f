"""Variants that another package offers: found by their entry point, looked for once."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from autoglm_ops import catalog
from autoglm_ops.catalog import Catalog
from autoglm_ops.errors import UsageError


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package with one entry point, in a group of its own."""
    package = tmp_path / "plugin-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[autoglm_ops.tested]\ntheirs = json:dumps\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    catalog._of_group.cache_clear()
    return "autoglm_ops.tested"


def test_what_a_package_offers_is_there_beside_the_built_in(offered: str) -> None:
    known = Catalog("thing", {"ours": "json:loads"}, group=offered)
    assert known.names() == ["ours", "theirs"]
    assert known.get("theirs")([1]) == "[1]"
    with pytest.raises(UsageError, match="did you mean 'theirs'"):
        known.get("theris")


def test_packages_are_looked_through_once(offered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    real = importlib.metadata.entry_points
    monkeypatch.setattr(catalog, "entry_points", lambda group: looked.append(group) or real(group=group))
    known = Catalog("thing", {"ours": "json:loads"}, group=offered)
    for _ in range(5):
        known.get("ours")
        known.names()
        with pytest.raises(UsageError):
            known.get("none")
    assert looked == [offered]
