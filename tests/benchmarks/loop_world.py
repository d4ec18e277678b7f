"""The bundled days as the benchmarks of the loop and of tuning see them: what `prepare` and `tokenize` make of each night, in memory."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from autoglm_ops.contracts.arrays import TokenArrays, TokenMeta, write_arrays
from autoglm_ops.contracts.record import digest_of
from autoglm_ops.data import tokenizer
from autoglm_ops.data.augment import Options, augment
from autoglm_ops.data.dedup import dedup
from autoglm_ops.data.rows import Row
from autoglm_ops.data.split import Shares, Splits, split
from autoglm_ops.data.tables import Copy
from autoglm_ops.settings import Settings
from autoglm_ops.stages import replay
from autoglm_ops.stages.prepare import weighed
from autoglm_ops.stages.tokenize import teacher_of
from autoglm_ops.training.rows import Rows

ROOT = Path(__file__).parents[2]
BENCH = ROOT / ".autoglm" / "bench"
DATA_CODE = (
    *(f"data/{name}.py" for name in ("tokenizer", "augment", "dedup", "split", "weights")),
    *(f"evaluation/{name}.py" for name in ("baseline", "forgetting", "metrics", "paired")),
    "stages/prepare.py",
)
"""What makes a night's rows and tokens."""


class World:
    """The bundled days: texts [n] in order, labels, and each text's place. model: what a night trains, glm or tfidf."""

    def __init__(self, settings: Settings, model: str) -> None:
        self.settings = settings
        self.model = model
        self._splits: dict[int, Splits] = {}
        self.days = list(replay.traffic(settings))
        self.texts = [text for day in self.days for text in day.texts]
        self.labels = [label for day in self.days for label in day.labels]
        self.names = [day.day.isoformat() for day in self.days for _ in day.texts]
        self.place = {text: number for number, text in enumerate(self.texts)}
        self.classes = sorted(set(self.labels))

    def splits(self, night: int) -> Splits:
        """What `prepare` makes of everything up to `night` (1-based)."""
        if night not in self._splits:
            self._splits[night] = self._split(night)
        return self._splits[night]

    def _split(self, night: int) -> Splits:
        last = self.days[night - 1].day.isoformat()
        rows = [
            Row(f"{number:06d}", text, label, day, "bundled", number)
            for number, (text, label, day) in enumerate(zip(self.texts, self.labels, self.names, strict=True))
            if day <= last
        ]
        found = split(dedup(rows)[0], self.shares())
        return weighed(found, {}, self.settings.prepare.half_life_days, self.settings.seed)[0]

    def shares(self) -> Shares:
        made = self.settings.prepare
        return Shares(made.holdout, made.validation, made.gate_days, self.settings.data.window_days)

    def copies(self, night: int) -> list[Copy]:
        """The altered copies of that night's training rows."""
        asked = self.settings.prepare.augment
        options = Options(asked.copies, asked.operations, asked.share, self.settings.seed)
        return augment(self.splits(night).samples["train"], self.shares(), options).copies if asked.copies else []

    def of_day(self, day: int) -> list[int]:
        return [self.place[text] for text in self.days[day - 1].texts]


def code(*parts: str) -> str:
    """A digest of these files or folders of the package: what was measured with other code is measured anew."""
    root = ROOT / "autoglm_ops"
    files = [
        path for part in parts for path in ([root / part] if (root / part).is_file() else sorted((root / part).rglob("*.py")))
    ]
    return digest_of({str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files})[:16]


@dataclass(frozen=True)
class Tokens:
    """A night's tokens: what is learned from and scored on, every bundled text in order, and what a model must know of them."""

    rows: Rows
    everything: TokenArrays
    meta: TokenMeta


def tokens(world: World, night: int) -> Tokens:
    """What `tokenize` makes of everything up to `night`; kept in .autoglm/bench/tokens by the digest of its settings."""
    settings, samples = world.settings, world.splits(night).samples
    wanted = {"night": night, "prepare": settings.prepare.model_dump(), "tokenize": settings.tokenize.model_dump()}
    wanted |= {"window": settings.data.window_days, "code": code(*DATA_CODE)}
    wanted |= {"seed": settings.seed} if settings.prepare.augment.copies or settings.prepare.half_life_days == "auto" else {}
    folder = BENCH / "tokens" / digest_of(wanted)[:16]
    length = settings.tokenize.max_length
    if not folder.exists():
        making = folder.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        made = tokenizer.train((row.text for row in samples["train"]), settings.tokenize.vocabulary, settings.tokenize.longest)
        tokenizer.save(made, making / "tok", length)
        copies, asked = world.copies(night), settings.tokenize.teacher != "none"
        opinions = teacher_of(samples["train"], copies, tuple(world.classes)) if asked else None
        learned = [*samples["train"], *(copy.sample() for copy in copies)]
        for part, rows, teacher in (("train", learned, opinions), ("validation", samples["validation"], None)):
            ids = tokenizer.encode(made, [row.text for row in rows], length)
            labels, weights = [world.classes.index(row.label) for row in rows], [row.weight for row in rows]
            write_arrays(making, part, ids, labels, weights, teacher)
        write_arrays(making, "all", tokenizer.encode(made, world.texts, length), [0] * len(world.texts))
        making.rename(folder)
    made, pad = tokenizer.load(folder / "tok")
    train, validation, everything = (TokenArrays.open(folder, part) for part in ("train", "validation", "all"))
    labels, count = tuple(world.classes), {"train": len(train)}
    meta = TokenMeta(vocabulary=made.get_vocab_size(), pad_id=pad, max_length=length, labels=labels, rows=count)
    return Tokens(Rows(train, validation, pad, len(labels)), everything, meta)
