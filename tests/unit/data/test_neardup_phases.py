"""Duplicates over shards: recall and precision at known similarity, and the same answer whatever the memory and the sharding."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.data.neardup.match import match, partitions
from autoglm_ops.data.neardup.options import Options
from autoglm_ops.data.neardup.settle import gone, settle
from autoglm_ops.data.neardup.shingles import band_keys, jaccards, shingles
from autoglm_ops.data.neardup.sign import shards_signed, sign
from autoglm_ops.data.neardup.verify import verify
from autoglm_ops.data.neardup.whole import dedup, frames
from autoglm_ops.data.steps.compiled import flat
from autoglm_ops.errors import SettingsError

VOCABULARY = [f"w{n}" for n in range(5000)]
HAN = [chr(0x4E00 + n) for n in range(3000)]


def grams(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}


def similarity(left: list[str], right: list[str]) -> float:
    return len(grams(left) & grams(right)) / len(grams(left) | grams(right))


def edited(words: list[str], vocabulary: list[str], random: np.random.Generator) -> list[str]:
    """A version of `words` at Jaccard 0.80 to 0.85."""
    while True:
        hit = random.random(len(words)) < random.uniform(0.01, 0.04)
        made = [
            vocabulary[random.integers(len(vocabulary))] if change else word for word, change in zip(words, hit, strict=True)
        ]
        if 0.80 <= similarity(words, made) <= 0.85:
            return made


@pytest.fixture(scope="module")
def corpus() -> tuple[list[str], int, int]:
    """500 texts in English-like words and in Han, 300 edited versions, then 40 copies of the first."""
    random = np.random.default_rng(7)
    kinds = [(VOCABULARY, " ")] * 250 + [(HAN, "")] * 250
    base = [([str(word) for word in random.choice(kind, random.integers(60, 250))], kind, gap) for kind, gap in kinds]
    near = [gap.join(edited(words, kind, random)) for words, kind, gap in base[100:400]]
    texts = [gap.join(words) for words, _, gap in base]
    return [*texts, *near, *texts[:40]], 500, 800


def shards_of(texts: list[str], sizes: list[int], folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, (begin, end) in enumerate(pairwise(np.cumsum([0, *sizes]).tolist())):
        pl.DataFrame({"text": texts[begin:end]}).write_parquet(folder / f"{n}.parquet")
        paths.append(folder / f"{n}.parquet")
    return paths


def dropped(work: Path, sizes: list[int]) -> dict[int, tuple[str, int]]:
    """Place in the corpus -> reason and place of the document it repeats."""
    base = np.cumsum([0, *sizes]).tolist()
    return {
        base[shard] + row: (reason, base[of_shard] + of_row)
        for shard in range(len(sizes))
        for row, reason, of_shard, of_row in gone(work, shard).iter_rows()
    }


def test_f06_copies_and_near_copies_are_found_and_others_stay(corpus: tuple[list[str], int, int], tmp_path: Path) -> None:
    texts, near, copies = corpus
    sizes = [300, 300, 240]
    settled = dedup(shards_of(texts, sizes, tmp_path), tmp_path / "work")
    found = dropped(tmp_path / "work", sizes)
    assert {place for place, (reason, _) in found.items() if reason == "duplicate"} == set(range(copies, len(texts)))
    close = {place: of for place, (reason, of) in found.items() if reason == "near-duplicate"}
    assert set(close) <= set(range(near, copies)) and all(of == place - 400 for place, of in close.items())
    assert len(close) / (copies - near) >= 0.98
    assert settled.documents == len(texts) == settled.kept + sum(settled.dropped.values())
    assert settled.dropped == {"duplicate": 40, "near-duplicate": len(close)}


def test_memory_partitions_and_sharding_change_nothing(corpus: tuple[list[str], int, int], tmp_path: Path) -> None:
    texts = corpus[0]
    seen = []
    for name, sizes, memory in (("a", [840], 256 << 20), ("b", [1, 0, 40, 799], 1 << 20)):
        dedup(shards_of(texts, sizes, tmp_path / name), tmp_path / name / "work", Options(memory=memory))
        seen.append(dropped(tmp_path / name / "work", sizes))
    assert partitions(tmp_path / "b" / "work", Options(memory=1 << 20)) > 1
    assert len(list((tmp_path / "b" / "work" / "signed" / "000003").glob("bands.*"))) > 1
    assert seen[0] == seen[1]


def test_phases_run_alone_and_again_give_the_same_bytes(corpus: tuple[list[str], int, int], tmp_path: Path) -> None:
    sizes, options, work = [420, 420], Options(), tmp_path / "work"
    paths = shards_of(corpus[0], sizes, tmp_path)
    dedup(paths, tmp_path / "whole", options)
    sign(frames(paths[1]), 1, work, options)
    torn = sign(frames(paths[0]), 0, work, options)
    torn.rename(torn.with_name(torn.name + ".part"))
    (torn.with_name(torn.name + ".part") / "starts.npy").unlink()
    for _ in range(2):
        for shard in (1, 0):
            sign(frames(paths[shard]), shard, work, options)
        for partition in (2, 0, 1):
            match(partition, 3, work)
        for shard in (1, 0):
            verify(shard, work, options)
        settle(work)
    assert [path.name for path in shards_signed(work)] == ["000000", "000001"]
    for shard in range(2):
        one, other = ((root / "gone" / f"{shard:06d}.parquet").read_bytes() for root in (work, tmp_path / "whole"))
        assert one == other


def test_a_chain_of_likes_does_not_swallow_the_corpus(tmp_path: Path) -> None:
    """Each text is 0.9 like the next; from end to end they share nothing. Closure would keep one of them."""
    words = [str(word) for word in np.random.default_rng(1).permutation(VOCABULARY)[:500]]
    texts = [" ".join(words[5 * n : 5 * n + 100]) for n in range(80)]
    dedup(shards_of(texts, [80], tmp_path), tmp_path / "work")
    found = dropped(tmp_path / "work", [80])
    assert 20 < len(found) < 60
    for place, (_, of) in found.items():
        assert of not in found
        assert similarity(texts[place].split(), texts[of].split()) >= 0.8


def test_a_template_filled_in_many_times_costs_no_square(tmp_path: Path) -> None:
    words = VOCABULARY[:200]
    texts = [" ".join([*words, f"number{n}"]) for n in range(3000)]
    settled = dedup(shards_of(texts, [3000], tmp_path), tmp_path / "work")
    assert settled.kept == 1
    pairs = np.load(tmp_path / "work" / "pairs" / "000000.npy")
    assert pairs.shape[1] <= 3000 * 8 * 20


def test_empty_and_tiny_texts_are_compared_whole(tmp_path: Path) -> None:
    texts = ["", "", "!", "yes", "Yes!", "no", "", "这书"]
    dedup(shards_of(texts, [8], tmp_path), tmp_path / "work")
    found = dropped(tmp_path / "work", [8])
    assert found == {1: ("duplicate", 0), 6: ("duplicate", 0), 4: ("near-duplicate", 3)}


def test_no_documents_at_all(tmp_path: Path) -> None:
    paths = shards_of([], [0], tmp_path)
    pl.DataFrame({"text": []}, schema={"text": pl.String}).write_parquet(paths[0])
    assert dedup(paths, tmp_path / "work") == (0, {})


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "书", "d!"]), max_size=30).map(" ".join), min_size=2, max_size=5))
@settings(max_examples=100, deadline=None)
def test_similarity_is_that_of_sets(texts: list[str]) -> None:
    sets = shingles(flat(pl.Series(texts)), 2)
    left, right = (places.reshape(-1).astype(np.int64) for places in np.meshgrid(range(len(texts)), range(len(texts))))
    words = [text.replace("!", "").split() for text in texts]
    bags = [{tuple(one[n : n + 2]) for n in range(max(min(1, len(one)), len(one) - 1))} for one in words]
    expected = [len(bags[a] & bags[b]) / max(1, len(bags[a] | bags[b])) for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(jaccards(sets.hashes, sets.offsets, left, right), expected)


def test_bands_agree_as_often_as_theory_says() -> None:
    """One hash a band: the share of equal bands estimates the similarity, without bias (Broder 1997)."""
    random = np.random.default_rng(3)
    words = [str(word) for word in random.choice(VOCABULARY, 400)]
    other = edited(words, VOCABULARY, random)
    options = Options(bands=1000, rows=1)
    keys = band_keys(shingles(flat(pl.Series([" ".join(words), " ".join(other)])), 5), options)
    assert (keys[0] == keys[1]).mean() == pytest.approx(similarity(words, other), abs=0.05)


@pytest.mark.parametrize("bad", [{"threshold": 1.2}, {"bands": 0}, {"rows": 0}, {"ngram": 0}, {"memory": 10}, {"bands": 2.5}])
def test_options_out_of_range_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=rf"dedup\.{next(iter(bad))} = "):
        Options(**bad)  # type: ignore[arg-type]


def test_a_signed_shard_is_left_as_it_is(tmp_path: Path) -> None:
    folder = sign([pl.DataFrame({"text": ["one"]})], 0, tmp_path, Options())
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sign([], 0, tmp_path, Options()) == folder
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    shutil.rmtree(folder)
