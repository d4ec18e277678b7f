"""Augmentation of training rows: easy data augmentation (Wei & Zou 2019, arXiv:1901.11196) without its thesaurus, and cropping.

A unit is a word, or one character of a script that is written without spaces; a copy takes one operation, as in the paper:
delete (each unit with probability `share`, so never a word's half), swap (`share` of the units change places in pairs), crop (a run
of half or more of the units), shuffle (the sentences in another order).

What a copy says hangs on the seed, its parent's normalised text and its number alone, and is drawn from SHAKE-256, which no library's
next version changes: neither order nor shard moves it. A copy passes the split as any text does: one whose content belongs to
validation or to the gate, on this day or on any other, is drawn again and at last dropped.

Measured (tests/benchmarks/bench_augmentation.py; the GLM classifier, 800 of the bundled reviews, two copies of each, 100 optimiser steps
with and without, macro-F1 on 2,652 held-out rows): no gain is shown. On three tuning seeds delete came first (+0.017; shuffle +0.017,
swap +0.015, all +0.006, crop +0.006); on twelve other seeds it made 0.721 against 0.730, -0.010 with a 95 % interval of -0.026 to +0.007.
At 300 steps all four, not tuned, made 0.717 against 0.706 on ten of those seeds, +0.011, -0.010 to +0.033.
So copies are off by default. `train.token_dropout`, which blanks tokens afresh in every batch, was on in both arms.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.data.dedup import normalise
from autoglm_ops.data.split import Shares, side
from autoglm_ops.data.tables import Copy, Sample
from autoglm_ops.errors import SettingsError

ATTEMPTS = 4
"""Draws per copy. A quarter of all texts is held out by default: one in 256 copies is then given up."""

_ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_UNIT = re.compile(rf"([{_ALONE}]|[^\W{_ALONE}]+(?:['’][^\W{_ALONE}]+)*)(\W*)")
_SENTENCE = re.compile(r"(.+?(?:[。！？；]+|[!?;.]+(?=\s)|(?=\n)|$))(\s*)", re.DOTALL)

Unit = tuple[str, str]
"""A word, and what stands between it and the next: space and punctuation."""
Numbers = NDArray[np.uint32]


@dataclass(frozen=True)
class Options:
    """`copies` per training row, made by one of `operations`, each touching about `share` of the units (delete and swap)."""

    copies: int
    operations: tuple[str, ...]
    share: float
    seed: int

    def __post_init__(self) -> None:
        unknown = [name for name in self.operations if name not in OPERATIONS]
        if unknown or (self.copies and not self.operations):
            raise SettingsError(
                f"prepare.augment.operations = {list(self.operations)} must name one or more of {', '.join(OPERATIONS)}"
            )


@dataclass(frozen=True)
class Augmented:
    """The copies, and how many were given up by reason word. asked = copies + dropped."""

    copies: list[Copy]
    dropped: dict[str, int]


def augment(train: Sequence[Sample], shares: Shares, options: Options) -> Augmented:
    """`options.copies` copies per row of `train`, in its order. Nothing but `train` is read, and `train` is left as it is.

    A copy is dropped as "held-out" (its text belongs to validation or the gate), "unchanged" (nothing in it could be moved),
    "repeated" (a training row or another copy says the same) or "label-conflict" (another copy says the same under another label).
    """
    parents = [normalise(row.text) for row in train]
    known = set(parents)
    dropped: Counter[str] = Counter()
    made: dict[str, list[Copy]] = {}
    for row, parent in zip(train, parents, strict=True):
        for number in range(1, options.copies + 1):
            text, key, reason = _draw(row.text, parent, number, known, shares, options)
            if reason:
                dropped[reason] += 1
            else:
                made.setdefault(key, []).append(Copy(f"{row.id}~{number}", text, *row[2:], parent=row.id))
    return Augmented(_once(made, dropped), dict(sorted(dropped.items())))


def _draw(text: str, parent: str, number: int, known: set[str], shares: Shares, options: Options) -> tuple[str, str, str]:
    """A copy's text, its normalised form, and why it cannot be used ("" when it can)."""
    result = ("", "", "unchanged")
    for attempt in range(ATTEMPTS):
        seed = f"{options.seed}:{number}:{attempt}:{parent}".encode()
        name = options.operations[int.from_bytes(hashlib.sha256(seed).digest()[:4], "big") % len(options.operations)]
        changed = OPERATIONS[name](text, seed, options.share).strip()
        key = normalise(changed)
        result = (changed, key, _reason(key, parent, known, shares))
        if not result[2]:
            break
    return result


def _reason(key: str, parent: str, known: set[str], shares: Shares) -> str:
    if not key or key == parent:
        return "unchanged"
    if key in known:
        return "repeated"
    return "" if side(key, shares) == "train" else "held-out"


def _once(made: dict[str, list[Copy]], dropped: Counter[str]) -> list[Copy]:
    """Of copies that say the same the one of the lowest id; none when their labels differ: which one is right is not known."""
    kept = []
    for same in made.values():
        if len({copy.label for copy in same}) > 1:
            dropped["label-conflict"] += len(same)
            continue
        kept.append(min(same, key=lambda copy: (copy.id, copy.text)))
        if len(same) > 1:
            dropped["repeated"] += len(same) - 1
    return kept


def units(text: str) -> list[Unit]:
    """`text` as units. What stands before the first word is dropped."""
    return _UNIT.findall(text)


def _delete(text: str, seed: bytes, share: float) -> str:
    parts = units(text)
    kept = _numbers(seed, len(parts)) >= share * 2**32
    return _join([part for part, keep in zip(parts, kept, strict=True) if keep])


def _swap(text: str, seed: bytes, share: float) -> str:
    parts = units(text)
    if len(parts) < 2:
        return text
    words = [word for word, _ in parts]
    places = _numbers(seed, 2 * max(1, round(share * len(parts) / 2))) % len(parts)
    for one, other in places.reshape(-1, 2).tolist():
        words[one], words[other] = words[other], words[one]
    return _join([(word, gap) for word, (_, gap) in zip(words, parts, strict=True)])


def _crop(text: str, seed: bytes, _: float) -> str:
    parts = units(text)
    half = len(parts) // 2
    length, start = _numbers(seed, 2).tolist()
    size = half + length % max(1, len(parts) - half)
    first = start % (len(parts) - size + 1)
    return _join(parts[first : first + size])


def _shuffle(text: str, seed: bytes, _: float) -> str:
    parts = _SENTENCE.findall(text)
    order = np.argsort(_numbers(seed, len(parts)), kind="stable").tolist()
    return _join([(parts[place][0], gap) for place, (_, gap) in zip(order, parts, strict=True)])


OPERATIONS: dict[str, Callable[[str, bytes, float], str]] = {
    "delete": _delete,
    "swap": _swap,
    "crop": _crop,
    "shuffle": _shuffle,
}


def _join(parts: Sequence[Unit]) -> str:
    return "".join(map("".join, parts))


def _numbers(seed: bytes, count: int) -> Numbers:
    """`count` numbers in [0, 2**32), the same on every machine."""
    return np.frombuffer(hashlib.shake_256(seed).digest(4 * count), "<u4").astype(np.uint32, copy=False)
