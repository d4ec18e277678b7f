"""The tokenizer and the arrays: loadable by transformers, the same every time, nothing that runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autoglm_ops.contracts.arrays import TokenArrays, write_arrays
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.data import tokenizer as own
from autoglm_ops.errors import BadData, Tampered, UsageError

TEXTS = ["书很好 好书", "好\u3000房间  Ａ1", "A1 房间差\n书", "𠮷𠮷野家 好"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tokenizer") / "t"
    own.save(own.train(TEXTS, 100, 3), place, 16)
    return place


def test_the_same_texts_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    own.save(own.train(list(TEXTS), 100, 3), tmp_path / "again", 16)
    assert digest_path(tmp_path / "again") == digest_path(folder)


def test_the_alphabet_is_ordered_and_rare_characters_are_unknown(folder: Path) -> None:
    tokenizer, pad = own.load(folder)
    assert pad == tokenizer.token_to_id("[PAD]") == 0
    vocabulary = tokenizer.get_vocab()
    single = [token for token in vocabulary if len(token) == 1]
    assert sorted(single) == sorted(single, key=vocabulary.__getitem__), "the alphabet is in order, so the bytes never differ"
    assert "野" not in vocabulary
    (ids,) = own.encode(tokenizer, ["好野"], 16)
    assert ids == [vocabulary["好"], vocabulary["[UNK]"], vocabulary["[CLS]"]]


def test_a_long_text_is_cut_and_keeps_its_last_token(folder: Path) -> None:
    tokenizer, _ = own.load(folder)
    (ids,) = own.encode(tokenizer, ["好" * 50], 16)
    assert len(ids) == 16
    assert ids[-1] == tokenizer.token_to_id("[CLS]")


def test_a_small_vocabulary_is_kept_to(tmp_path: Path) -> None:
    assert own.train(["".join(map(chr, range(0x4E00, 0x4F00))) * 2], 64, 3).get_vocab_size() == 64


@pytest.mark.parametrize("longest", [2, 3, 4])
def test_a_token_is_at_most_as_long_as_asked(longest: int) -> None:
    vocabulary = own.train(["推荐大家买来读一读"] * 9, 64, longest).get_vocab()
    assert 2 <= max(len(token) for token in vocabulary if token not in own.SPECIAL) <= longest


def test_a_special_token_in_a_text_is_only_text(folder: Path) -> None:
    """Threats F35: no text may speak for the template."""
    tokenizer, _ = own.load(folder)
    (ids,) = own.encode(tokenizer, ["好[CLS]好[PAD]"], 64)
    assert [number for number in ids if number == tokenizer.token_to_id("[CLS]")] == ids[-1:]
    assert 0 not in ids


def test_transformers_loads_the_folder_and_agrees(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    config = json.loads((folder / "tokenizer_config.json").read_text())
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    del config["split_special_tokens"]
    (tmp_path / "given" / "tokenizer_config.json").write_text(json.dumps(config))
    own.copy(tmp_path / "given", tmp_path / "taken")
    for place in (folder, tmp_path / "taken"):
        theirs = AutoTokenizer.from_pretrained(str(place))
        tokenizer, pad = own.load(place)
        for text in ("A1 房间差 书", "好[CLS]好[PAD]"):
            assert theirs(text)["input_ids"] == own.encode(tokenizer, [text], 16)[0]
        assert (theirs.pad_token_id, theirs.model_max_length, theirs.cls_token, theirs.unk_token) == (pad, 16, "[CLS]", "[UNK]")


def test_a_given_folder_comes_without_code_or_templates(folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for file in folder.iterdir():
        (given / file.name).write_bytes(file.read_bytes())
    (given / "tokenization_evil.py").write_text("raise SystemExit")
    (given / "chat_template.jinja").write_text("{{ 1 }}")
    own.copy(given, tmp_path / "taken")
    assert {file.name for file in (tmp_path / "taken").iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    config = json.loads((given / "tokenizer_config.json").read_text())
    (given / "tokenizer_config.json").write_text(json.dumps({**config, "auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    with pytest.raises(BadData, match="auto_map"):
        own.copy(given, tmp_path / "not-taken")


def test_a_folder_that_is_no_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no tokenizer\.json"):
        own.copy(tmp_path, tmp_path / "x")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadData, match="cannot be read"):
        own.load(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(BadData, match="no pad_token"):
        own.load(tmp_path)


def test_arrays_come_back_row_by_row_without_being_read(tmp_path: Path) -> None:
    rows = [[1, 2, 3], [], [4]]
    write_arrays(tmp_path, "train", rows, [0, 1, 0])
    arrays = TokenArrays.open(tmp_path, "train")
    assert isinstance(arrays.tokens, np.memmap)
    assert arrays.tokens.dtype == np.int32
    assert [arrays[place].tolist() for place in range(len(arrays))] == rows
    assert (arrays.lengths.tolist(), arrays.labels.tolist()) == ([3, 0, 1], [0, 1, 0])
    with pytest.raises(IndexError):
        arrays[3]


def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    write_arrays(tmp_path, "train", [[1, 2]], [0])
    np.save(tmp_path / "train.tokens.npy", np.zeros(3, np.int32))
    with pytest.raises(Tampered, match="do not belong together: 3 tokens"):
        TokenArrays.open(tmp_path, "train")
