"""prepare: distinct texts, split by content, the profile that production is compared with, and copies of training rows when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from autoglm_ops.contracts.data import SPLITS, WEIGHTS_FILE, HalfLife
from autoglm_ops.contracts.record import digest_of, digest_path
from autoglm_ops.data import weights
from autoglm_ops.data.apart import apart
from autoglm_ops.data.augment import Options, augment
from autoglm_ops.data.dedup import dedup
from autoglm_ops.data.split import Shares, Splits, check_filled, check_leakage, describe, split
from autoglm_ops.data.tables import Copy, Sample, read_rows, write_rows
from autoglm_ops.evaluation.forgetting import half_life
from autoglm_ops.monitoring.drift import profile
from autoglm_ops.stages.base import Context, Outcome


def run(context: Context) -> Outcome:
    """Writes {train,validation,gate}.parquet, dataset.json, reference.json and, with prepare.augment.copies, copies.parquet.

    Raises BadData on a leak or an empty split.
    """
    prepare, data = context.settings.prepare, context.settings.data
    shares = Shares(prepare.holdout, prepare.validation, prepare.gate_days, data.window_days)
    weak = weights.read(context.output("validate", WEIGHTS_FILE))
    distinct, repeated = dedup(weights.believed(read_rows(context.output("validate", "rows.parquet")), weak))
    splits = split(distinct, shares)
    if prepare.near_copies == "drop":
        splits = apart(splits, distinct, shares)
    splits, measured = weighed(splits, weak, prepare.half_life_days, context.settings.seed)
    samples = splits.samples
    check_filled(samples)
    check_leakage(samples)
    for name in SPLITS:
        write_rows(context.out / f"{name}.parquet", samples[name], Sample)
    facts = _augment(context, splits, shares)
    parts = [*SPLITS, "copies"] if facts else SPLITS
    digest = digest_of({name: digest_path(context.out / f"{name}.parquet") for name in parts})
    version = describe(splits, repeated, digest)
    version.write(context.out / "dataset.json")
    train = samples["train"]
    profile([row.text for row in train], [row.label for row in train]).write(context.out / "reference.json")
    facts = {"dataset": version.digest, "rows": version.rows, "dropped": version.dropped, **facts}
    if measured is None:
        return Outcome(facts=facts)
    return Outcome((measured.reason,), facts={**facts, "half_life": measured.model_dump(mode="json")})


def weighed(
    splits: Splits, weak: Mapping[str, float], half_life_days: float | Literal["auto"], seed: int
) -> tuple[Splits, HalfLife | None]:
    """The splits with what each training row weighs, and how the half-life was found where that was left to it ("auto")."""
    found = _stale(splits.samples["train"], weak, seed) if half_life_days == "auto" else None
    days = found.days if found is not None else float(half_life_days)
    if not weak and not days:
        return splits, found
    samples, dropped = weights.weigh(splits.samples, weak, days, splits.days[-1])
    return replace(splits, samples=samples, dropped={**splits.dropped, **dropped}), found


def _stale(rows: Sequence[Sample], weak: Mapping[str, float], seed: int) -> HalfLife:
    sure = [weak.get(row.id, 1.0) for row in rows]
    return half_life(
        [row.text for row in rows], [row.label for row in rows], sure, [row.day for row in rows], weights.decay, seed
    )


def _augment(context: Context, splits: Splits, shares: Shares) -> dict[str, Any]:
    """Writes copies.parquet beside the splits, which stay as they are. What to say of it; nothing when no copies are asked for."""
    asked = context.settings.prepare.augment
    if not asked.copies:
        return {}
    train = splits.samples["train"]
    made = augment(train, shares, Options(asked.copies, asked.operations, asked.share, context.settings.seed))
    check_leakage({**splits.samples, "train": [*train, *(copy.sample() for copy in made.copies)]})
    write_rows(context.out / "copies.parquet", made.copies, Copy)
    return {"copies": len(made.copies), "copies_dropped": made.dropped}
