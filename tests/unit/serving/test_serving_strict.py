"""JSON as the standard has it (threats F01, F04, F05)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.serving.faults import RequestError
from autoglm_ops.serving.schema import event_time
from autoglm_ops.serving.strict import parse

NOW = 1_770_000_000.0  # 2026-02-02T02:40:00Z


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "empty_body"),
        (b" ", "bad_json"),
        (b"{", "bad_json"),
        (b"{} {}", "bad_json"),
        (b"{'a': 1}", "bad_json"),
        (b'{"a": NaN}', "not_a_number"),
        (b'{"a": -Infinity}', "not_a_number"),
        (b'{"a": 1e999}', "not_a_number"),
        (b'{"a": 1, "a": 2}', "duplicate_key"),
        (b'{"a": {"b": 1, "b": 1}}', "duplicate_key"),
        (b'"\xff"', "bad_utf8"),
        ('{"a": 1}'.encode("utf-16"), "bad_utf8"),
        ('{"a": 1}'.encode("utf-16-le"), "bad_json"),
        (b'\xef\xbb\xbf{"a": 1}', "bad_json"),
        (rb'{"a": "\ud800"}', "lone_surrogate"),
        (rb'{"\udfff": 1}', "lone_surrogate"),
        (b"1" * 5000, "bad_number"),
        (b"[" * 65 + b"]" * 65, "too_deep"),
        (b"[" * 100_000, "too_deep"),
        (b'{"a":' * 100_000, "too_deep"),
        (b'"\x00"', "bad_json"),
    ],
)
def test_what_is_not_json_is_refused_by_its_name(raw: bytes, code: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse(raw)
    assert (refused.value.status, refused.value.code) == (400, code)


def test_what_is_json_is_read() -> None:
    assert parse(rb'{"a": "\ud83d\ude00", "b": [1, -2.5e3, null, true]}') == {"a": "😀", "b": [1, -2500.0, None, True]}
    assert parse(b"[" * 64 + b"]" * 64) is not None
    assert parse(b'"' + b"[" * 500 + b'"') == "[" * 500


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda s: st.lists(s) | st.dictionaries(st.text(), s),
    )
)
def test_what_json_writes_is_read_back(value: object) -> None:
    assert parse(json.dumps(value).encode()) == value


@given(st.binary(max_size=60))
def test_whatever_comes_is_a_value_or_a_refusal(raw: bytes) -> None:
    try:
        parse(raw)
    except RequestError as refused:
        assert refused.status == 400 and refused.body()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (None, "2026-02-02T02:40:00Z"),
        ("2026-01-05", "2026-01-05"),
        ("2026-01-05T10:00:00", "2026-01-05T10:00:00Z"),
        ("2026-01-05T00:30:00+02:00", "2026-01-04T22:30:00Z"),
        ("2026-02-03", "2026-02-03"),
    ],
)
def test_an_event_has_its_own_time_in_utc(said: str | None, kept: str) -> None:
    assert event_time(said, NOW) == kept


@given(st.text(max_size=40))
def test_whatever_is_said_of_the_time_is_an_iso_time_or_a_refusal(said: str) -> None:
    try:
        kept = event_time(said, NOW)
    except RequestError as refused:
        assert refused.status == 422
    else:
        assert "1970-01-01" <= kept[:10] <= "2026-02-03"
