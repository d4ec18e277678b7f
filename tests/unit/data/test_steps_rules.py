"""Gopher, C4 and the CJK rules: each rule by a document that breaks it alone, and the counts against Python's own string methods."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.data.flow import DOCUMENT, DROPPED
from autoglm_ops.data.steps.c4 import C4
from autoglm_ops.data.steps.catalog import STEPS
from autoglm_ops.data.steps.characters import characters
from autoglm_ops.data.steps.cjk_quality import CjkQuality
from autoglm_ops.data.steps.gopher_quality import GopherQuality, measure
from autoglm_ops.data.steps.gopher_repetition import GopherRepetition, cjk_repetition
from autoglm_ops.errors import SettingsError

PIECES = st.sampled_from(
    [
        *"abA.#-• \n\r\t…中文かé1!?\"'()[]{}",
        "\r\n",
        "\u2028",
        "\x85",
        "\u3000",
        "...",
        "the ",
        "be ",
        "\n\n",
        "[1]",
        "𠀀",
        "😀",
        "\x1c",
        "[٣]",
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)
PROSE = " ".join(
    f"the people of town {chr(97 + i % 26)}{chr(97 + i // 26)}x went to market and bought bread" for i in range(30)
)
PHRASES = ("say it again my friend", "what is done is done", "all good things must end", "no news is good news")
REVIEW = "这本书写得很好，内容丰富，语言流畅。推荐给所有喜欢历史的朋友，值得一读再读！"


def frame_of(*texts: str) -> pl.DataFrame:
    rows = [(str(n), text, None, None, "s", n) for n, text in enumerate(texts)]
    return pl.DataFrame(rows, schema=DOCUMENT, orient="row")


def reasons(step: object, *texts: str) -> list[str | None]:
    kept, dropped = step(frame_of(*texts))  # type: ignore[operator]
    assert kept.schema == DOCUMENT and dropped.schema == DROPPED
    assert sorted([*kept["id"], *dropped["id"]]) == sorted(map(str, range(len(texts))))
    found = dict(zip(dropped["id"], dropped["reason"], strict=True))
    return [found.get(str(n)) for n in range(len(texts))]


@given(st.lists(TEXTS, max_size=6))
@settings(max_examples=150, deadline=None)
def test_counts_are_those_of_pythons_string_methods(texts: list[str]) -> None:
    got = measure(pl.Series(texts, dtype=pl.String), ("the", "be")).to_dicts()
    for text, counts in zip(texts, got, strict=True):
        words, lines = text.split(), text.splitlines()
        assert counts["words"] == len(words)
        assert counts["lettered"] == sum(any(map(str.isalpha, word)) for word in words)
        assert counts["stop_words"] == len({"the", "be"} & set(words))
        assert counts["hashes"] == text.count("#")
        assert counts["ellipses"] == text.count("...") + text.count("…")
        assert counts["lines"] == len(lines)
        assert counts["bullets"] == sum(line.lstrip().startswith(("•", "-")) for line in lines)
        assert counts["trailing"] == sum(line.rstrip().endswith(("...", "…")) for line in lines)
        assert counts["alpha"] == sum(map(str.isalpha, text))


def repeated(pieces: list[str]) -> tuple[float, int]:
    again = [piece for n, piece in enumerate(pieces) if piece in pieces[:n]]
    return len(again) / len(pieces), sum(map(len, again))


def skipping(words: list[str], n: int) -> int:
    seen, at, size = set(), 0, 0
    while at + n <= len(words):
        joined = "".join(words[at : at + n])
        size, at = (size + len(joined), at + n) if joined in seen else (size, at + 1)
        seen.add(joined)
    return size


@given(st.lists(TEXTS, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_repetition_is_counted_as_the_paper_has_it(texts: list[str]) -> None:
    shares = GopherRepetition(top=((2, 0.2), (3, 0.2)), duplicate=((2, 0.1), (4, 0.1)))._shares(
        pl.Series(texts, dtype=pl.String)
    )
    for text, row in zip(texts, shares, strict=True):
        size, words = max(1, len(text)), text.split()
        paragraphs, lines = repeated(re.split(r"\n{2,}", text.strip())), repeated(re.split(r"\n+", text))
        expected = [paragraphs[0], paragraphs[1] / size, lines[0], lines[1] / size]
        for n in (2, 3):
            grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
            expected.append(len((top := grams.most_common(1)[0])[0]) * top[1] / size if grams else 0)
        expected += [skipping(words, n) / size for n in (2, 4)]
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        ("the cat and the dog", "gopher-too-short"),
        ("the of a is " * 30, "gopher-short-words"),
        ("extraordinarily international the telecommunications and " * 20, "gopher-long-words"),
        (PROSE + " #" * 80, "gopher-hashes"),
        (PROSE + " word..." * 60, "gopher-ellipses"),
        ("\n".join(f"- {line}" for line in PROSE.split(" town ")), "gopher-bullets"),
        ("\n".join(f"{line}..." for line in PROSE.split("market")), "gopher-trailing-ellipses"),
        (PROSE + " 1234" * 120, "gopher-few-letters"),
        ("lorem ipsum dolor amet consectetur " * 20, "gopher-few-stop-words"),
        (REVIEW * 5, None),
    ],
)
def test_each_gopher_rule_has_its_word(text: str, reason: str | None) -> None:
    assert reasons(GopherQuality(), text) == [reason]


def test_a_long_document_is_turned_away_by_its_words() -> None:
    assert reasons(GopherQuality(max_words=100), PROSE) == ["gopher-too-long"]


def test_every_document_is_judged_when_no_cjk_share_is_set() -> None:
    assert reasons(GopherQuality(cjk_share=None), REVIEW) == ["gopher-too-short"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE.replace("market", ""), None),
        ("a line\n" * 10, "gopher-repeated-lines"),
        ("one paragraph here\n\n" * 10, "gopher-repeated-paragraphs"),
        ("very good " * 30, "gopher-top-2-gram"),
        (" ".join(f"{phrase} x{n}{k}" for k in "ab" for n, phrase in enumerate(PHRASES)), "gopher-repeated-5-grams"),
    ],
)
def test_each_repetition_rule_has_its_word(text: str, reason: str | None) -> None:
    prose = " ".join(f"{a}{b}" for a in "qwertyuiop" for b in ("as", "df", "gh"))
    assert reasons(GopherRepetition(), prose if reason is None else text) == [reason]


def test_cjk_characters_are_words_for_the_cjk_rules_only() -> None:
    again = "好评如潮非常满意" * 12
    assert reasons(cjk_repetition(), REVIEW, again, "say it again " * 50)[0] is None
    assert reasons(cjk_repetition(), REVIEW, again)[1] == "cjk-top-3-gram"
    assert reasons(cjk_repetition(), "say it again " * 50) == [None]
    assert reasons(GopherRepetition(), again) == [None]


SENTENCES = "\n".join(f"This is sentence number {n} of the page." for n in range(6))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SENTENCES, None),
        (SENTENCES + "\nHere is Lorem Ipsum for you.", "c4-lorem-ipsum"),
        (SENTENCES + "\nif (x) { return.", None),
        (SENTENCES + "\nA set {1, 2} has two elements.", "c4-curly-bracket"),
        ("One sentence only is here.", "c4-few-sentences"),
        ("", "c4-few-sentences"),
        (REVIEW, None),
    ],
)
def test_each_c4_rule_has_its_word(text: str, reason: str | None) -> None:
    if text.endswith("return."):
        reason = "c4-curly-bracket"
    assert reasons(C4(), text) == [reason]


def test_c4_takes_out_lines_and_marks_and_nothing_else() -> None:
    bad = [
        "no end",
        "Two words.",
        "Please enable JavaScript in your browser.",
        "We care: our Cookie Policy is here.",
        "And then so on...",
        "x" * 1001 + " is too long.",
    ]
    text = "\r\n".join(
        [bad[0], "[1]A first line[citation needed] stays.", *bad[1:], "Another[٣] one[edit] here. And here. Yes! No?"]
    )
    kept, _ = C4(min_sentences=5)(frame_of(text))
    assert kept["text"].to_list() == ["A first line stays.\nAnother one here. And here. Yes! No?"]


def test_c4_leaves_cjk_text_as_it_is() -> None:
    assert C4()(frame_of(REVIEW + "[1]")).kept["text"].to_list() == [REVIEW + "[1]"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (REVIEW, None),
        ("好书。", "cjk-too-short"),
        ("价格￥￥￥￥￥￥￥￥￥￥￥￥￥￥￥￥￥￥￥￥好的东西很不错大家都来买", "cjk-few-letters"),
        ("#好#的#书#真#的#很#好#看#啊#推#荐#给#你", "cjk-punctuation"),
        ("\n".join(["- 这里是一条很长的列表内容没有别的东西"] * 6), "cjk-bullets"),
        ("\n".join(["这里是一条很长的内容没有说完就断了…"] * 6), "cjk-trailing-ellipses"),
        ("\n".join(["首页新闻体育财经", "登录注册帮助中心", "热门推荐今日排行", "关于我们联系方式"]), "cjk-unpunctuated"),
        ("plain English text is not for these rules", None),
    ],
)
def test_each_cjk_rule_has_its_word(text: str, reason: str | None) -> None:
    assert reasons(CjkQuality(min_letters=0.5, max_symbols=0.6), text) == [reason]


def test_a_cjk_text_may_be_too_long_and_full_of_hashes() -> None:
    assert reasons(CjkQuality(max_characters=20), REVIEW) == ["cjk-too-long"]
    assert reasons(CjkQuality(), REVIEW + "########") == ["cjk-symbols"]


@pytest.mark.parametrize(
    "name",
    [
        "normalise",
        "pii",
        "gopher-quality",
        "gopher-repetition",
        "c4",
        "cjk-quality",
        "cjk-repetition",
        "contamination",
        "source-cap",
        "mix",
    ],
)
def test_a_step_loses_no_document_and_takes_an_empty_frame(name: str) -> None:
    step = STEPS.get(name)()
    reasons(step)
    reasons(step, "", PROSE, REVIEW, "\n", " ", "😀" * 3, SENTENCES)
    kept, dropped = step(frame_of("a").with_columns(text=pl.lit(None, pl.String)))
    assert kept.height + dropped.height == 1
    assert step.name


def test_code_points_are_what_python_says() -> None:
    flags = characters().flags
    assert flags[ord("中")] & 32 and not flags[ord("、")] & 32 and flags[0x20000] & 128
    assert not flags[ord("é")] & 32 and characters().lower[ord("É")] == ord("é")


def test_more_stop_words_than_fit_are_refused() -> None:
    with pytest.raises(SettingsError, match="65 words"):
        GopherQuality(stop_words=tuple(f"w{n}" for n in range(65)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gopher-quality", {"min_words": "many"}),
        ("gopher-quality", {"max_symbols": float("nan")}),
        ("gopher-quality", {"min_word": 5}),
        ("gopher-repetition", {"top": [[0, 0.2]]}),
        ("cjk-repetition", {"duplicate": [["five", 0.2]]}),
        ("normalise", {"form": "NFZ"}),
        ("pii", {"kinds": ["e-mail"]}),
        ("language", {"keep": ["English"]}),
        ("language", {"keep": []}),
        ("c4", {"min_sentences": None}),
    ],
)
def test_an_option_that_means_nothing_is_refused_before_any_work(name: str, options: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError, SettingsError)):
        STEPS.get(name)(**options)


def test_options_may_come_from_yaml_with_lists_for_tuples() -> None:
    step = STEPS.get("gopher-repetition")(top=[[2, 0.5]], duplicate=[])
    assert step.top == ((2, 0.5),)
    assert reasons(step, "say this again and again") == [None]
