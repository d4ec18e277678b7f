"""Steps that need a measure of the corpus first: source caps, mixing, contamination; and packing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.data.flow import DOCUMENT
from autoglm_ops.data.steps.contamination import Contamination, Protected
from autoglm_ops.data.steps.mixing import Mix, rates
from autoglm_ops.data.steps.packing import pack, tokenise
from autoglm_ops.data.steps.source_cap import SourceCap, keys, limits, lowest, merged
from autoglm_ops.data.tokenizer import train
from autoglm_ops.errors import SettingsError, UsageError

WORDS = [f"{a}{b}" for a in "bcdfghklmn" for b in ("aro", "elin", "ist", "ovar", "um")]


def frame_of(rows: list[tuple[str, str]]) -> pl.DataFrame:
    """Documents of (source, text)."""
    full = [(f"{source}-{n}", text, None, None, source, n) for n, (source, text) in enumerate(rows)]
    return pl.DataFrame(full, schema=DOCUMENT, orient="row")


CORPUS = frame_of([(source, f"text {n}") for source, count in (("big", 300), ("small", 20)) for n in range(count)])


def capped(shards: list[pl.DataFrame], cap: int) -> set[str]:
    found = merged([lowest([shard], cap) for shard in shards], cap)
    step = SourceCap(limits(found, cap))
    sifted = [step(shard) for shard in shards]
    assert {reason for _, dropped in sifted for reason in dropped["reason"]} <= {"source-cap"}
    return {name for kept, _ in sifted for name in kept["id"]}


@given(st.integers(0, 400), st.integers(1, 7), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_f07_a_source_never_exceeds_its_cap_and_order_does_not_matter(cap: int, cuts: int, random) -> None:
    order = list(range(CORPUS.height))
    random.shuffle(order)
    shards = [CORPUS[order[part::cuts]] for part in range(cuts)]
    kept = capped(shards, cap)
    assert kept == capped([CORPUS], cap)
    assert sum(name.startswith("big") for name in kept) == min(cap, 300)
    assert sum(name.startswith("small") for name in kept) == min(cap, 20)


def test_where_a_file_is_cut_moves_no_draw() -> None:
    """`line` counts from the cut."""
    assert keys(CORPUS).to_list() == keys(CORPUS.with_columns(pl.col("line") + 1000)).to_list()


def test_f07_copies_of_one_row_do_not_get_past_the_cap() -> None:
    flood = pl.concat([CORPUS.head(1)] * 250)
    assert len(capped([flood], 10)) == 0


def test_weights_become_rates_that_keep_the_proportion_and_the_most() -> None:
    found = rates({"a": 1000, "b": 100, "c": 5}, {"a": 3, "b": 1})
    assert found == pytest.approx({"a": 0.3, "b": 1.0, "c": 0.0})


@pytest.mark.parametrize("weights", [{}, {"a": -1.0}, {"a": float("nan")}, {"x": 1.0}, {"a": 0.0}])
def test_weights_that_mean_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"mix\.weights"):
        rates({"a": 10}, weights)


def test_a_mix_is_the_same_for_any_shards_and_near_its_rate() -> None:
    step = Mix({"big": 0.5, "small": 1.0})
    kept, dropped = step(CORPUS)
    parts = [step(CORPUS[part::3]).kept["id"].to_list() for part in range(3)]
    assert set(kept["id"]) == {name for part in parts for name in part}
    assert 120 < sum(name.startswith("big") for name in kept["id"]) < 180
    assert sum(name.startswith("small") for name in kept["id"]) == 20
    assert set(dropped["reason"]) == {"mix"}
    assert Mix({"big": 0.5, "small": 1.0}, seed=9)(CORPUS).kept["id"].to_list() != kept["id"].to_list()
    assert Mix({"big": 0.0, "small": 0.0})(CORPUS).kept.is_empty()


def text_of(seed: int, size: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, size))


def test_what_holds_a_protected_text_is_found_and_its_like_is_not() -> None:
    gate = text_of(1, 40)
    edited = gate.split()
    edited[20] = "changed"
    review = "这家酒店位置很好服务也不错"
    protected = Protected.of([pl.Series([gate, review]), pl.Series([], dtype=pl.String)])
    texts = [
        gate.upper() + "!",
        f"{text_of(2, 300)} {gate} {text_of(3, 300)}",
        " ".join(edited),
        review + "。",
        text_of(4, 200),
        "",
        "很好",
    ]
    kept, dropped = Contamination(protected)(frame_of([("s", text) for text in texts]))
    assert dropped["line"].to_list() == [0, 1, 2, 3]
    assert kept["line"].to_list() == [4, 5, 6]
    assert set(dropped["reason"]) == {"contaminated"}


def test_a_short_near_copy_is_found_by_its_share() -> None:
    protected = Protected.of([pl.Series(["这家酒店位置很好服务"])])
    kept, dropped = Contamination(protected)(frame_of([("s", "这家酒店位置很好服"), ("s", "这家酒店太差再也不来")]))
    assert dropped["line"].to_list() == [0] and kept.height == 1


def test_nothing_protected_drops_nothing() -> None:
    assert Contamination()(CORPUS).dropped.is_empty()


@given(st.lists(st.integers(0, 23), max_size=30), st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_every_token_is_packed_once_and_only_long_documents_are_cut(sizes: list[int], length: int) -> None:
    documents = [np.arange(size, dtype=np.int32) + 100 * n for n, size in enumerate(sizes)]
    packed = pack(documents, length, pad=-7)
    tokens, segments, owners = packed
    assert tokens.shape == segments.shape == owners.shape and tokens.shape[1] == length
    assert np.array_equal(np.sort(tokens[segments > 0]), np.sort(np.concatenate([*documents, np.empty(0, np.int32)])))
    assert (tokens[segments == 0] == -7).all() and (owners[segments == 0] == -1).all()
    for n, document in enumerate(documents):
        rows = [row for row in range(len(tokens)) if (owners[row] == n).any()]
        assert len(rows) <= max(1, -(-len(document) // length))
        assert sorted(tokens[owners == n]) == document.tolist()
    for row in range(len(tokens)):
        ends = packed.cu_seqlens(row)
        for begin, end in pairwise(ends.tolist()):
            assert len(set(owners[row, begin:end])) == 1 and (np.diff(tokens[row, begin:end]) == 1).all()
        assert ends[-1] == (segments[row] > 0).sum()


def test_best_fit_leaves_little_room() -> None:
    sizes = np.random.default_rng(0).integers(1, 400, 2000)
    packed = pack([np.zeros(size, np.int32) for size in sizes], 512, 0)
    assert sizes.sum() / packed.tokens.size > 0.99


def test_a_length_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="holds no token"):
        pack([[1]], 0, 0)


def test_texts_become_ids_with_an_end_and_no_special_token_of_their_own() -> None:
    tokenizer = train(["这家 酒店 [CLS] very good" * 3], 60, 3)
    ids = tokenise(tokenizer, pl.Series(["酒店 [CLS]", "", None]), end=2)
    assert ids[0][-1] == 2 and 2 not in ids[0][:-1].tolist()
    assert [len(one) for one in ids[1:]] == [1, 1]
