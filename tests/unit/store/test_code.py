"""Code by location: what is sent, what stays behind, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.store.archive import Limits
from autoglm_ops.store.code import lay_code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "train.py",
        "pkg/__init__.py",
        ".git/config",
        ".venv/bin/python",
        "pkg/__pycache__/x.pyc",
        ".autoglm/jobs/x",
        ".hidden",
    ):
        path = tmp_path / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "code"


def test_a_folder_is_sent_without_its_environments_and_caches(folder: Path, tmp_path: Path) -> None:
    laid = lay_code(str(folder), tmp_path / "laid")
    found = sorted(path.relative_to(laid).as_posix() for path in laid.rglob("*") if path.is_file())
    assert found == [".hidden", "pkg/__init__.py", "train.py"]


@pytest.mark.parametrize("limits", [Limits(entries=2), Limits(unpacked=10)])
def test_a_folder_over_the_limits_is_refused(folder: Path, tmp_path: Path, limits: Limits) -> None:
    with pytest.raises(Refused, match="send the code alone"):
        lay_code(str(folder), tmp_path / "laid", limits)


def test_a_link_is_refused_wherever_it_leads(folder: Path, tmp_path: Path) -> None:
    (folder / "pkg" / "link").symlink_to(folder / "train.py")
    with pytest.raises(Refused, match="link"):
        lay_code(str(folder), tmp_path / "laid")


def test_nothing_there_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a file"):
        lay_code(str(tmp_path / "nowhere"), tmp_path / "laid")
