"""Keys: made once, readable by their owner alone, compared as bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.errors import UsageError
from autoglm_ops.serving.keys import Keys, load, load_or_make

KEY = "k-0123456789abcdef"


def bearer(key: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", b"Bearer " + key)]


def test_the_first_start_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "serving" / "api-key"
    load_or_make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    made = path.read_bytes().strip()
    assert made.startswith(b"sk-autoglm-") and len(made) > 40
    assert load_or_make(path).admit(bearer(made))
    assert [file.name for file in path.parent.iterdir()] == ["api-key"]


def test_servers_that_start_together_share_one_key(tmp_path: Path) -> None:
    path = tmp_path / "api-key"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: load_or_make(path), range(8)))
    made = path.read_bytes().strip()
    assert all(key.admit(bearer(made)) for key in keys)


def test_a_key_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "api-key"
    load_or_make(path)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        load_or_make(path)


def test_a_file_may_hold_several_keys_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# the old one\n{KEY}\n\n  other-{KEY}  \n")
    keys = load(path)
    assert keys.admit(bearer(KEY.encode())) and keys.admit(bearer(b"other-" + KEY.encode()))
    assert not keys.admit(bearer(b"# the old one"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no key"),
        (b"# none\n", "holds no key"),
        (b"short\n", ":1: a key"),
        (f"{KEY} x\n".encode(), ":1: a key"),
        (b"\xff" * 20, "ASCII"),
    ],
)
def test_a_bad_key_file_is_refused_without_showing_it(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as refused:
        load(path)
    assert KEY not in str(refused.value) and "short" not in str(refused.value)
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "absent")


@given(st.lists(st.tuples(st.sampled_from([b"authorization", b"Authorization", b"x"]), st.binary(max_size=40)), max_size=4))
def test_whatever_headers_come_the_answer_is_no(headers: list[tuple[bytes, bytes]]) -> None:
    assert Keys([KEY]).admit(headers) is False


def test_one_header_with_the_key_is_yes_and_two_are_no() -> None:
    keys = Keys([KEY])
    assert keys.admit(bearer(KEY.encode())) and keys.admit([(b"Authorization", b"bearer  " + KEY.encode())])
    assert not keys.admit(bearer(KEY.encode()) * 2)
    assert not keys.admit([(b"authorization", b"Basic " + KEY.encode())])
    assert not Keys([]).admit(bearer(b""))
