"""The tasks of a build. Each takes the work folder and a number, and does nothing when its result is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from autoglm_ops.contracts.flow import BuildPlan, Counts
from autoglm_ops.data.build.folders import Table, frames, json_line, made_whole
from autoglm_ops.data.build.plan import guards, options, read_plan, shape_of, shard_of, steps
from autoglm_ops.data.flow import DOCUMENT, DROPPED, Sifted, Step, divide
from autoglm_ops.data.neardup.match import match as match_keys
from autoglm_ops.data.neardup.match import partitions
from autoglm_ops.data.neardup.settle import gone
from autoglm_ops.data.neardup.settle import settle as settle_pairs
from autoglm_ops.data.neardup.sign import sign
from autoglm_ops.data.neardup.verify import verify as verify_pairs
from autoglm_ops.data.readers import Limits, Rejected
from autoglm_ops.data.readers import read as read_shard
from autoglm_ops.data.steps import mixing, source_cap
from autoglm_ops.data.steps.pii import Pii, masked


def place(work: Path, phase: str, number: int) -> Path:
    """Where a task's result lies."""
    return work / phase / f"{number:06d}"


def read(work: Path, number: int, limits: Limits) -> None:
    """Shard `number` through the steps -> read/<number>/{kept,dropped}.parquet, rejected.jsonl, counts.json; then its signatures."""
    made, folder = read_plan(work), place(work, "read", number)
    if not folder.exists():
        with made_whole(folder) as part:
            _read(made, [*steps(made.recipe), *guards(work, made.recipe)], number, limits, part)
    if chosen := options(made.recipe):
        sign(frames(folder / "kept.parquet"), number, work, chosen)


def _read(made: BuildPlan, chosen: Sequence[Step], number: int, limits: Limits, folder: Path) -> None:
    tally = Tally()
    with (
        Table(folder / "kept.parquet", DOCUMENT) as kept,
        Table(folder / "dropped.parquet", DROPPED) as dropped,
        (folder / "rejected.jsonl").open("wb") as rejected,
    ):
        for item in read_shard(shard_of(made, number), made.location, shape_of(made.recipe), limits):
            if isinstance(item, Rejected):
                tally.quarantined[item.reason] += 1
                rejected.write(json_line(item._asdict()))
                continue
            tally.seen += item.height
            sifted = _through(item, chosen, tally)
            kept.add(sifted.kept)
            dropped.add(sifted.dropped)
    tally.seen += tally.quarantined.total()
    tally.counts(kept.rows).write(folder / "counts.json")


def _through(frame: pl.DataFrame, chosen: Iterable[Step], tally: Tally) -> Sifted:
    kept, gone_by_step = frame, [pl.DataFrame(schema=DROPPED)]
    for step in chosen:
        before = kept
        kept, dropped = step(kept)
        gone_by_step.append(dropped)
        if isinstance(step, Pii):
            tally.masked.update(masked(before, kept))
    return tally.of(Sifted(kept, pl.concat(gone_by_step)))


class Tally:
    """Counting as frames go by."""

    def __init__(self) -> None:
        self.seen = 0
        self.characters = 0
        self.dropped: Counter[str] = Counter()
        self.quarantined: Counter[str] = Counter()
        self.masked: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()

    def of(self, sifted: Sifted) -> Sifted:
        self.dropped.update(dict(sifted.dropped["reason"].value_counts().iter_rows()))
        self.sources.update(dict(sifted.kept["source"].fill_null("").value_counts().iter_rows()))
        self.characters += int(sifted.kept["text"].str.len_chars().sum())
        return sifted

    def counts(self, kept: int) -> Counts:
        found = {name: dict(sorted(getattr(self, name).items())) for name in ("dropped", "quarantined", "masked", "sources")}
        return Counts(seen=self.seen, kept=kept, characters=self.characters, **found)


def ranges(work: Path) -> int:
    """How many `match` tasks there are: known when every shard was read; 0 without dedup."""
    chosen = options(read_plan(work).recipe)
    return partitions(work, chosen) if chosen else 0


def match(work: Path, number: int) -> None:
    """Key range `number` -> the pairs to look at."""
    if not (work / "pairs" / f"{number:06d}.npy").exists():
        match_keys(number, ranges(work), work)


def verify(work: Path, number: int) -> None:
    """The pairs of shard `number` that are near-duplicates."""
    chosen = options(read_plan(work).recipe)
    if chosen and not (work / "similar" / f"{number:06d}.npy").exists():
        verify_pairs(number, work, chosen)


def settle(work: Path) -> None:
    """Which rows of every shard go."""
    if options(read_plan(work).recipe):
        settle_pairs(work)


def weigh(work: Path, number: int) -> None:
    """What caps and mixing need to know of shard `number`'s survivors -> weigh/<number>/{lowest.parquet, counts.json}."""
    recipe, folder = read_plan(work).recipe, place(work, "weigh", number)
    if folder.exists() or not (recipe.source_cap or recipe.mix):
        return
    with made_whole(folder) as part:
        tally = Tally()
        left = (tally.of(sifted).kept for sifted in _survivors(work, number))
        lowest = source_cap.lowest(left, recipe.source_cap or 0, recipe.seed)
        lowest.write_parquet(part / "lowest.parquet")
        tally.counts(sum(tally.sources.values())).write(part / "counts.json")


def write(work: Path, number: int) -> None:
    """The dataset's part `number` -> write/<number>/{kept,dropped}.parquet, counts.json."""
    folder = place(work, "write", number)
    if folder.exists():
        return
    thinning = _thinning(work)
    with made_whole(folder) as part:
        tally = Tally()
        with Table(part / "kept.parquet", DOCUMENT) as kept, Table(part / "dropped.parquet", DROPPED) as dropped:
            for sifted in _survivors(work, number):
                tally.seen += sifted.kept.height + sifted.dropped.height
                thinned = _through(sifted.kept, thinning, Tally())
                last = tally.of(Sifted(thinned.kept, pl.concat([sifted.dropped, thinned.dropped])))
                kept.add(last.kept)
                dropped.add(last.dropped)
        tally.counts(kept.rows).write(part / "counts.json")


def _survivors(work: Path, number: int) -> Iterable[Sifted]:
    """The shard's documents after deduplication, frame by frame."""
    reasons = gone(work, number) if options(read_plan(work).recipe) else None
    at = 0
    for frame in frames(place(work, "read", number) / "kept.parquet"):
        yield divide(frame, pl.lit(_reasons(reasons, at, frame.height)))
        at += frame.height


def _reasons(found: pl.DataFrame | None, at: int, height: int) -> pl.Series:
    words = np.full(height, None, dtype=object)
    if found is not None:
        here = found.filter(pl.col("row").is_between(at, at + height, closed="left"))
        words[here["row"].to_numpy() - at] = here["reason"].to_numpy()
    return pl.Series("reason", words.tolist(), dtype=pl.String)


def _thinning(work: Path) -> list[Step]:
    """The steps that the whole corpus decides: source caps, then mixing by weight of what the caps leave."""
    made = read_plan(work)
    recipe, shards = made.recipe, range(len(made.shards))
    chosen: list[Step] = []
    if not (recipe.source_cap or recipe.mix):
        return chosen
    counts: Counter[str] = Counter()
    for number in shards:
        counts.update(Counts.read(place(work, "weigh", number) / "counts.json").sources)
    if recipe.source_cap:
        cap = recipe.source_cap
        lowest = source_cap.merged((pl.read_parquet(place(work, "weigh", n) / "lowest.parquet") for n in shards), cap)
        chosen.append(source_cap.SourceCap(source_cap.limits(lowest, cap), recipe.seed))
        counts = Counter({source: min(count, cap) for source, count in counts.items()})
    if recipe.mix:
        chosen.append(mixing.Mix(mixing.rates(counts, recipe.mix), recipe.seed))
    return chosen
