"""`autoglm data pack`: every token of every document once, whatever the length; the same once; what is wrong is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.contracts.record import digest_tree
from autoglm_ops.data import tokenizer as tokenizers
from autoglm_ops.data.build.finish import unchecked
from autoglm_ops.errors import Tampered, UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.stages import dataset, dataset_pack

TEXTS = [f"letter {n} tells of bread, salt and the price of candles" + " once more" * (n % 40) for n in range(120)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A home, a dataset of several parts in it, and a tokenizer's folder."""
    home = tmp_path_factory.mktemp("home")
    (home / "raw").mkdir()
    for place in range(3):
        rows = (json.dumps({"text": text}) + "\n" for text in TEXTS[place::3])
        (home / "raw" / f"{place}.jsonl").write_text("".join(rows))
    settings = Settings.model_validate({"flow": {"suite": None, "steps": [], "dedup": {"enabled": False}}})
    settings = settings.model_copy(update={"flow": settings.flow.model_copy(update={"shard_mb": 1})})
    work = dataset.open_build(settings, str(home / "raw"), home, home)
    built: BuiltDataset = dataset.build(settings, work, dataset.Place(home, home, unchecked), 1, lambda *_: None)
    tokenizers.save(tokenizers.train(TEXTS, 300, 3), home / "tokenizer", 128)
    return home, home / "datasets" / built.digest, home / "tokenizer"


@pytest.mark.parametrize("length", [1, 7, 64, 4096])
def test_every_token_of_every_document_is_there_once(made: tuple[Path, Path, Path], length: int) -> None:
    home, folder, tokenizer = made
    seen: list[tuple[int, int]] = []
    found, where = dataset_pack.packed(folder, tokenizer, length, None, home, lambda done, of: seen.append((done, of)))
    tokens, segments = (
        np.concatenate([np.load(where / file.name, mmap_mode="r").ravel() for file in found.files if kind in file.name])
        for kind in ("tokens", "segments")
    )
    plain, _ = tokenizers.load(tokenizer)
    expected = sorted(token for text in TEXTS for token in plain.encode(text, add_special_tokens=False).ids)
    assert sorted(tokens[segments > 0].tolist()) == expected
    assert (found.documents, found.tokens, found.rows * length) == (len(TEXTS), len(expected), len(tokens))
    assert seen == [(n + 1, len(found.files) // 2) for n in range(len(found.files) // 2)]


def test_the_same_is_made_once_and_another_way_is_another(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    home, folder, tokenizer = made
    first, where = dataset_pack.packed(folder, tokenizer, 32, None, home, lambda *_: None)
    before = digest_tree(where)
    assert dataset_pack.packed(folder, tokenizer, 32, None, home, lambda *_: pytest.fail("made again")) == (first, where)
    assert digest_tree(dataset_pack.packed(folder, tokenizer, 32, None, tmp_path, lambda *_: None)[1]) == before
    ended, other = dataset_pack.packed(folder, tokenizer, 32, "[CLS]", home, lambda *_: None)
    assert other != where and ended.tokens == first.tokens + len(TEXTS), "one more behind each document"


def test_a_token_it_has_not_and_a_changed_dataset_are_refused(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, folder, tokenizer = made
    with pytest.raises(UsageError, match="has no token '<end>'"):
        dataset_pack.packed(folder, tokenizer, 32, "<end>", tmp_path, lambda *_: None)
    part = next(folder.glob("part-*"))
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + b"x")
    with pytest.raises(Tampered):
        dataset_pack.packed(folder, tokenizer, 32, None, tmp_path, lambda *_: None)
    part.write_bytes(whole)
    assert not (tmp_path / "packed").exists()
