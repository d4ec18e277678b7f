"""prepare: distinct texts, split by content, the profile that production is compared with, and copies of training rows when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autoglm_ops.contracts.data import SPLITS, WEIGHTS_FILE
from autoglm_ops.contracts.record import digest_of, digest_path
from autoglm_ops.data import weights
from autoglm_ops.data.apart import apart
from autoglm_ops.data.augment import Options, augment
from autoglm_ops.data.dedup import dedup
from autoglm_ops.data.split import Shares, Splits, check_filled, check_leakage, describe, split
from autoglm_ops.data.tables import Copy, Sample, read_rows, write_rows
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
    if weak or prepare.half_life_days:
        splits = _weighed(splits, weak, prepare.half_life_days)
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
    return Outcome(facts={"dataset": version.digest, "rows": version.rows, "dropped": version.dropped, **facts})


def _weighed(splits: Splits, weak: Mapping[str, float], half_life_days: float) -> Splits:
    samples, dropped = weights.weigh(splits.samples, weak, half_life_days, splits.days[-1])
    return replace(splits, samples=samples, dropped={**splits.dropped, **dropped})


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
