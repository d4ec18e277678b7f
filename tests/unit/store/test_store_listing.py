"""A folder's listing: what it refuses, and that its text has the folder's digest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.contracts.record import digest_path, tree_text
from autoglm_ops.errors import Refused, Tampered, UsageError
from autoglm_ops.store.listing import check_digest, digest_of_listing, parse, survey


def make(folder: Path) -> Path:
    (folder / "deep").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "deep" / "weights").write_bytes(b"\0" * 100)
    return folder


def test_the_listing_has_the_folders_digest(tmp_path: Path) -> None:
    folder = make(tmp_path / "m")
    (folder / "deep-er").write_text("sorted as paths, not as text")
    listing = survey(folder)
    assert list(listing) == ["config.json", "deep/weights", "deep-er"]
    assert digest_of_listing(listing) == digest_path(folder)
    assert parse(tree_text(listing).encode(), digest_path(folder), "here") == listing


def test_links_devices_and_odd_names_are_refused(tmp_path: Path) -> None:
    for number, spoil in enumerate(
        (
            lambda f: (f / "link").symlink_to("/etc/passwd"),
            lambda f: (f / "folder").symlink_to("/etc"),
            lambda f: os.mkfifo(f / "pipe"),
            lambda f: (f / "tab\tname").write_text(""),
            lambda f: (f / "line\nname").write_text(""),
            lambda f: (f / "sep\u2028name").write_text(""),
        )
    ):
        folder = make(tmp_path / str(number))
        spoil(folder)
        with pytest.raises(Refused):
            survey(folder)


def test_no_folder_and_no_file_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(make(tmp_path / "real"))
    for name in ("empty", "file", "absent", "link"):
        with pytest.raises(UsageError):
            survey(tmp_path / name)


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a/../../b", "a\\b"])
def test_a_listing_cannot_leave_its_folder(name: str) -> None:
    text = f"{name}\t{'0' * 64}\n".encode()
    with pytest.raises(Refused, match="not allowed"):
        parse(text, hashlib.sha256(text).hexdigest(), "here")


def test_a_changed_listing_is_refused(tmp_path: Path) -> None:
    text = tree_text(survey(make(tmp_path / "m"))).encode()
    with pytest.raises(Tampered):
        parse(text.replace(b"config", b"c0nfig"), hashlib.sha256(text).hexdigest(), "here")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_only_a_digest_is_a_digest(text: str) -> None:
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        assert check_digest(text) == text
    else:
        with pytest.raises(UsageError):
            check_digest(text)
