"""flow.protect: no document of a built dataset shares text with a test set, whatever is done to the build's own list of it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.data.build.finish import unchecked
from autoglm_ops.data.steps.contamination import Protected
from autoglm_ops.errors import BadData, Tampered
from autoglm_ops.settings import Settings
from autoglm_ops.stages import dataset

ASKED = "the harbour master counted seventeen ships in the fog before breakfast on the first day of winter"
FREE = [
    f"letter {n} tells of quite another matter, namely of bread, salt, {n} loaves and the price of candles" for n in range(20)
]


def written(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def build(home: Path, raw: list[str], **flow: object) -> BuiltDataset:
    settings = Settings.model_validate({"flow": {"suite": None, **flow}})
    work = dataset.open_build(settings, written(home / "raw.jsonl", raw), home, home)
    return dataset.build(settings, work, dataset.Place(home, home, unchecked), 1, lambda *_: None)


def test_a_copy_and_a_near_copy_of_a_protected_text_are_dropped_and_counted(tmp_path: Path) -> None:
    written(tmp_path / "test.jsonl", [ASKED])
    raw = [*FREE, ASKED, ASKED.replace("winter", "autumn") + ", it was said"]
    made = build(tmp_path, raw, protect=["test.jsonl"])  # a path counts from the checkout
    assert (made.seen, made.kept, made.dropped) == (22, 20, {"contaminated": 2})
    texts = pl.read_parquet(tmp_path / "datasets" / made.digest / made.parts[0].name)["text"].to_list()
    assert not any("harbour" in text for text in texts)


def test_what_is_protected_is_part_of_the_recipe_and_its_order_is_not(tmp_path: Path) -> None:
    one = Protected.of([pl.Series([ASKED, FREE[0]])])
    assert (
        one.digest()
        == Protected.of([pl.Series([FREE[0]]), pl.Series([ASKED])]).digest()
        != Protected.of([pl.Series([ASKED])]).digest()
    )
    written(tmp_path / "test.jsonl", [ASKED])
    assert build(tmp_path, FREE).recipe.protected is None
    assert build(tmp_path, FREE, protect=["test.jsonl"]).recipe.protected == Protected.of([pl.Series([ASKED])]).digest()


@pytest.mark.parametrize(
    ("text", "word"), [("", "is empty"), ("\n\n", "protects nothing"), ("{broken\n", "bad row"), (None, "does not exist")]
)
def test_a_test_set_that_protects_nothing_or_half_of_it_is_refused(tmp_path: Path, text: str | None, word: str) -> None:
    if text is not None:
        (tmp_path / "test.jsonl").write_text(text)
    with pytest.raises(BadData, match=word):
        build(tmp_path, FREE, protect=["test.jsonl"])


def test_a_torn_or_exchanged_list_is_an_error_and_not_an_unprotected_build(tmp_path: Path) -> None:
    written(tmp_path / "test.jsonl", [ASKED])
    settings = Settings.model_validate({"flow": {"suite": None, "protect": ["test.jsonl"]}})
    work = dataset.open_build(settings, written(tmp_path / "raw.jsonl", FREE), tmp_path, tmp_path)
    whole = (work / "protected.npz").read_bytes()
    Protected().save(work / "protected.npz")
    for damage in (None, whole[:-30], b""):
        if damage is not None:
            (work / "protected.npz").write_bytes(damage)
        with pytest.raises(Tampered, match=r"protected\.npz"):
            dataset.build(settings, work, dataset.Place(tmp_path, tmp_path, unchecked), 1, lambda *_: None)
