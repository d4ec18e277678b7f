"""A launch's data: raw text or conversations anywhere → the data flow engine → packed rows of tokens, split by content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.contracts.launch import RowSet
from autoglm_ops.contracts.record import digest_of, digest_path, digest_tree
from autoglm_ops.data import conversations as chats
from autoglm_ops.data import glm_tokenizer
from autoglm_ops.data import tokenizer as tokenizers
from autoglm_ops.data.build.folders import frames, made_whole
from autoglm_ops.data.build.plan import is_cuttable, shape_of
from autoglm_ops.data.readers import Rejected, read, survey
from autoglm_ops.data.readers import plan as cut
from autoglm_ops.data.split import place as split_place
from autoglm_ops.data.steps.packing import Packed, pack, tokenise
from autoglm_ops.errors import BadData, UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.settings.launch import LaunchDataset
from autoglm_ops.stages import dataset, dataset_suite
from autoglm_ops.training.packed import positions_of

RECORD = "_rows.json"
BLOCK = 32 << 20
"""Characters that are packed together."""
SAMPLE = 64 << 20
"""Characters a glm-tokenizer is trained on, the first of the training split."""
Watch = Callable[[str], None]


class Source(NamedTuple):
    """Where the data is, what it is, and what of the pipeline it goes through."""

    settings: Settings
    given: LaunchDataset
    home: Path
    origin: Path
    flow: bool
    tokenizer: Path | None
    """A tokenizer's folder; None trains a glm-tokenizer."""


class Documents(NamedTuple):
    """`texts` can be asked again and again; `digest` names them."""

    digest: str
    texts: Callable[[], Iterator[pl.Series]]
    dropped: dict[str, int]


def prepare(source: Source, length: int, watch: Watch) -> tuple[RowSet, Path]:
    """The rows and their folder, below `home/rows`, made once for the same data, tokenizer and length. tokenizer/ lies beside them.

    Raises UsageError or BadData for what cannot be read, tokenised or learned.
    """
    given, where = source.given, dataset.location(source.settings, source.given.path, source.origin)
    bounds = dataset.limits(source.settings)
    form = given.format
    if form == "auto":
        form = "conversations" if chats.looks_like(where, bounds) else "text"
    listing = dataset.listing_of(source.settings, where)
    asked = {
        "listing": listing, "format": form, "length": length, "validation": given.validation, "flow": _flow(source, form),
        "tokenizer": digest_path(source.tokenizer / "tokenizer.json") if source.tokenizer else f"glm {given.vocabulary}",
        "template": _template(source.tokenizer) if source.tokenizer else "",
    }  # fmt: skip
    target = source.home / "rows" / digest_of(asked)[:16]
    if not (target / RECORD).exists():
        with made_whole(target) as part:
            _make(source, where, form, length, part, watch)
    return RowSet.read(target / RECORD), target


def _flow(source: Source, form: str) -> Any:
    if not source.flow:
        return "off"
    return "distinct" if form == "conversations" else dataset.recipe(source.settings).model_dump(mode="json")


def _make(source: Source, where: str, form: str, length: int, part: Path, watch: Watch) -> None:
    if form == "conversations":
        found = _conversations(source, where, length, part, watch)
    else:
        found = _text(source, where, length, part, watch)
    if not found["rows"]["validation"]:
        raise BadData(
            f"no document fell into the validation share of {source.given.validation:g}; raise dataset.validation, or bring more data",
            ("no-rows",),
        )
    digest = digest_of(digest_tree(part))
    RowSet(digest=digest, format=form, length=length, tokenizer=digest_path(part / "tokenizer"), **found).write(part / RECORD)


def _text(source: Source, where: str, length: int, part: Path, watch: Watch) -> dict[str, Any]:
    documents = _built(source, where, watch) if source.flow else _raw(source, where)
    folder = part / "tokenizer"
    if source.tokenizer is None:
        watch("training a glm-tokenizer")
        glm_tokenizer.train(_sampled(documents, source.given.validation), source.given.vocabulary, folder)
    else:
        _copy(source.tokenizer, folder)
    tokenizer, pad = tokenizers.load(folder)
    end = _end_id(folder, tokenizer)
    writers = {split: _Writer(part / split) for split in ("train", "validation")}
    watch("packing")
    for block in _blocks(documents.texts()):
        inside = block.map_elements(lambda text: split_place(text) < source.given.validation, return_dtype=pl.Boolean)
        for split, texts in (("train", block.filter(~inside)), ("validation", block.filter(inside))):
            ids = tokenise(tokenizer, texts, end)
            writers[split].add(pack(ids, length, pad), len(ids))
    return {
        **_told(writers),
        "data": documents.digest,
        "dropped": documents.dropped,
        "vocabulary": tokenizer.get_vocab_size(),
        "pad_id": pad,
    }


def _built(source: Source, where: str, watch: Watch) -> Documents:
    """Through the data flow engine: steps, deduplication, versions."""
    watch("data flow engine: reading, cleaning and deduplicating")
    place = dataset.Place(source.home, source.origin, dataset_suite.check(source.settings, source.origin, source.home, where))
    work = dataset.open_build(source.settings, where, source.home, source.origin)
    built = dataset.build(source.settings, work, place, os.cpu_count() or 1, lambda *_: None)
    folder = dataset.datasets(source.home) / built.digest

    def texts() -> Iterator[pl.Series]:
        for one in built.parts:
            for frame in frames(folder / one.name):
                yield frame["text"]

    return Documents(built.digest, texts, {**built.dropped, **built.quarantined})


def _raw(source: Source, where: str) -> Documents:
    """As it lies there: what is no document is still turned away, and nothing else."""
    bounds, made = dataset.limits(source.settings), dataset.recipe(source.settings)
    dropped: Counter[str] = Counter()

    def texts() -> Iterator[pl.Series]:
        dropped.clear()
        for shard in cut(survey(where, bounds).blobs, dataset.LOOK_SHARD, cut=is_cuttable(where, made)):
            for item in read(shard, where, shape_of(made), bounds):
                if isinstance(item, Rejected):
                    dropped[item.reason] += 1
                else:
                    yield item["text"]

    return Documents(dataset.listing_of(source.settings, where), texts, dropped)


def _sampled(documents: Documents, validation: float) -> Iterator[str]:
    left = SAMPLE
    for block in documents.texts():
        for text in block.to_list():
            if split_place(text) >= validation:
                yield text
                left -= len(text)
                if left < 0:
                    return


def _blocks(texts: Iterable[pl.Series]) -> Iterator[pl.Series]:
    held: list[pl.Series] = []
    size = 0
    for series in texts:
        held.append(series)
        size += int(series.str.len_chars().sum())
        if size >= BLOCK:
            yield pl.concat(held)
            held, size = [], 0
    if held:
        yield pl.concat(held)


def _conversations(source: Source, where: str, length: int, part: Path, watch: Watch) -> dict[str, Any]:
    """Chat template, labels on the assistant's words alone, packed. `distinct` is what the data flow engine does to conversations."""
    from transformers import PreTrainedTokenizerFast

    from autoglm_ops.training.instructions import conversations as encoded

    watch("reading conversations")
    found, dropped = chats.read(where, dataset.limits(source.settings), distinct=source.flow)
    keys = [json.dumps(messages, ensure_ascii=False) for messages in found]
    held = [split_place(key) < source.given.validation for key in keys]
    folder = part / "tokenizer"
    if source.tokenizer is None:
        texts = (turn["content"] for messages, out in zip(found, held, strict=True) if not out for turn in messages)
        glm_tokenizer.train(texts, source.given.vocabulary, folder)
    else:
        _copy(source.tokenizer, folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        raise UsageError("the tokenizer has no pad_token; set one in its tokenizer_config.json")
    pad = int(tokenizer.pad_token_id)
    writers = {split: _Writer(part / split) for split in ("train", "validation")}
    watch("applying the chat template, packing")
    for split, out in (("train", False), ("validation", True)):
        chosen = [messages for messages, side in zip(found, held, strict=True) if side is out]
        if not chosen:
            continue
        made = encoded(tokenizer, chosen, length)
        dropped.update(made.dropped)
        rows = pack([example.ids for example in made.examples], length, pad)
        writers[split].add(rows, len(made.examples), asked=_asked(rows, [example.labels >= 0 for example in made.examples]))
    listing = dataset.listing_of(source.settings, where)
    return {**_told(writers), "data": listing, "dropped": dict(dropped), "vocabulary": len(tokenizer), "pad_id": pad}


def _asked(rows: Packed, learned: list[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """bool [rows, length]: each token's flag, found by its document and its place in it (no conversation is cut)."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in learned])])
    flat = np.concatenate(learned)
    places = offsets[rows.documents] + positions_of(rows.segments.astype(np.int64))
    return np.where(rows.segments > 0, flat[np.minimum(places, len(flat) - 1)], False)


class _Writer:
    """A split's parts, one a block."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._parts = folder, 0
        self.rows = self.documents = self.tokens = 0

    def add(self, rows: Packed, documents: int, asked: NDArray[np.bool_] | None = None) -> None:
        if not len(rows.tokens):
            return
        name = self._folder / f"part-{self._parts:06d}"
        np.save(name.with_suffix(".tokens.npy"), rows.tokens)
        np.save(name.with_suffix(".segments.npy"), rows.segments)
        if asked is not None:
            np.save(name.with_suffix(".asked.npy"), asked)
        self._parts += 1
        self.rows, self.documents = self.rows + len(rows.tokens), self.documents + documents
        self.tokens += int((rows.segments > 0).sum())


def _told(writers: dict[str, _Writer]) -> dict[str, Any]:
    return {
        name: {split: getattr(writer, name) for split, writer in writers.items()} for name in ("rows", "documents", "tokens")
    }


def _copy(given: Path, folder: Path) -> None:
    """The tokenizer, and its chat template into its config: a model folder holds no other file for one."""
    tokenizers.copy(given, folder)
    path, beside = folder / "tokenizer_config.json", given / "chat_template.jinja"
    config = json.loads(path.read_text(encoding="utf-8"))
    if beside.is_file():
        config["chat_template"] = beside.read_text(encoding="utf-8")
    config.pop("split_special_tokens", None)  # a template's control tokens must be read as such
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _template(given: Path) -> str:
    """Digest of what `_copy` takes."""
    names = ("tokenizer_config.json", "chat_template.jinja")
    return hashlib.sha256(b"\0".join((given / name).read_bytes() for name in names if (given / name).is_file())).hexdigest()


def _end_id(folder: Path, tokenizer: Any) -> int | None:
    """The id of eos_token, which closes each document; None when there is none."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    end = config.get("eos_token")
    name = end.get("content") if isinstance(end, dict) else end
    found: int | None = tokenizer.token_to_id(name) if isinstance(name, str) else None
    return found


def lay_tokenizer(rows: Path, target: Path) -> None:
    """Copy the rows' tokenizer beside a model's weights."""
    for path in sorted((rows / "tokenizer").iterdir()):
        shutil.copyfile(path, target / path.name)
