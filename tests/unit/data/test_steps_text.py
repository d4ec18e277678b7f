"""Normalisation, masking, language."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.data.flow import DOCUMENT
from autoglm_ops.data.steps.language import Language, detect
from autoglm_ops.data.steps.normalise import Normalise, normalised
from autoglm_ops.data.steps.pii import Pii, is_card, is_resident_id, mask, masked


def frame_of(*texts: str) -> pl.DataFrame:
    return pl.DataFrame([(str(n), text, None, None, "s", n) for n, text in enumerate(texts)], schema=DOCUMENT, orient="row")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\r\nb\rc\u2028d\x0be", "a\nb\nc\nd\ne"),
        ("a \t b\u00a0\u3000c", "a b c"),
        ("a \n  b", "a\nb"),
        ("a\n\n\n\n\nb", "a\n\nb"),
        ("a\n \n \n \nb", "a\n\nb"),
        ("\ufeffa\x00b\x1bc\ufffd", "abc"),
        ("e\u0301", "é"),
        ("  a  ", "a"),
        ("👩\u200d👧", "👩\u200d👧"),
    ],
)
def test_what_looks_the_same_becomes_the_same(text: str, clean: str) -> None:
    assert normalised(pl.Series([text]), "NFC").to_list() == [clean]


@given(
    st.lists(
        st.text(alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from(" \t\n\r\u2028\u3000\x00é")), max_size=40),
        max_size=5,
    )
)
@settings(max_examples=150, deadline=None)
def test_normalising_twice_changes_nothing(texts: list[str]) -> None:
    for form in ("NFC", "NFKC"):
        once = normalised(pl.Series(texts, dtype=pl.String), form)
        twice = normalised(once, form)
        assert twice.to_list() == once.to_list()
        assert all(unicodedata.is_normalized(form, text) or not text.isascii() for text in once)


def test_the_callers_column_is_left_as_it_was() -> None:
    given = pl.Series(["a  b", "cafe\u0301"])
    assert normalised(given, "NFC").to_list() == ["a b", "café"]
    assert given.to_list() == ["a  b", "cafe\u0301"]


def test_f05_length_is_judged_before_nfkc_makes_it_grow() -> None:
    kept, dropped = Normalise("NFKC", max_characters=100)(frame_of("\ufdfa" * 101, "\ufdfa" * 100, " \x00 ", "ok"))
    assert dropped["reason"].to_list() == ["too-long", "empty"]
    assert kept["id"].to_list() == ["1", "3"] and len(kept["text"][0]) == 1800


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("write to jo.doe+x@mail.example.co.uk.", "write to <EMAIL>."),
        ("from 192.168.10.254, and 2001:db8::8a2e:370:7334!", "from <IP>, and <IP>!"),
        ("version 1.2.3.400 at 10:30:15, std::vector", "version 1.2.3.400 at 10:30:15, std::vector"),
        ("身份证11010519491231002X。", "身份证11010519491231002X。".replace("11010519491231002X", "<ID>")),
        ("order 110105194912310021", "order 110105194912310021"),
        ("card 4111 1111 1111 1111 ok", "card <CARD> ok"),
        ("number 4111 1111 1111 1112 ok", "number 4111 1111 1111 1112 ok"),
        ("电话13812345678，或010-12345678", "电话<PHONE>，或<PHONE>"),
        ("call +1 415 555 2671 or (415) 555-2671", "call <PHONE> or <PHONE>"),
        ("pi is 3.14159265358979, the year 2024-01-31", "pi is 3.14159265358979, the year 2024-01-31"),
        ("sha 0123456789abcdef0123456789abcdef", "sha 0123456789abcdef0123456789abcdef"),
    ],
)
def test_personal_data_is_masked_and_numbers_are_not(text: str, hidden: str) -> None:
    assert Pii()(frame_of(text)).kept["text"].to_list() == [hidden]


def test_masks_are_counted_by_kind_and_chosen_by_kind() -> None:
    before = frame_of("a@b.org c@d.org", "8.8.8.8 <EMAIL>", "nothing")
    kept, dropped = Pii()(before)
    assert dropped.is_empty()
    assert masked(before, kept) == {"email": 2, "ip": 1, "id": 0, "card": 0, "phone": 0}
    assert mask("a@b.org 8.8.8.8", ("ip",)) == "a@b.org <IP>"


def test_check_digits() -> None:
    assert is_card("4111111111111111") and not is_card("4111111111111112") and not is_card("0000000000000000")
    assert is_resident_id("11010519491231002X") and not is_resident_id("110105194912310021")
    assert not is_resident_id("110105194913310020")


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "1 " * 100_000,
        "1-" * 100_000,
        "a@" * 100_000,
        "::" * 100_000,
        "1." * 100_000,
        "a." * 100_000 + "@",
        "+1" * 100_000,
    ],
)
def test_no_text_makes_the_search_slow(text: str) -> None:
    assert len(mask(text)) > 0


def test_languages_are_told_apart_offline() -> None:
    texts = (
        "This is a perfectly ordinary English sentence about trains.\nAnd more.",
        "这家酒店的服务非常好，下次还会再来。",
        "Ceci est une phrase tout à fait ordinaire.",
        "",
    )
    assert detect(pl.Series(texts))["language"].to_list() == ["en", "zh", "fr", "und"]
    kept, dropped = Language()(frame_of(*texts))
    assert kept["id"].to_list() == ["0", "1"]
    assert dropped["reason"].to_list() == ["language", "language"]
    assert Language(keep=("fr",))(frame_of(*texts)).kept["id"].to_list() == ["2"]
