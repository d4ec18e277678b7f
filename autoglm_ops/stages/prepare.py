"""prepare: distinct texts, split by content, and the profile that production is compared with."""

from __future__ import annotations

from autoglm_ops.contracts.data import SPLITS
from autoglm_ops.contracts.record import digest_of, digest_path
from autoglm_ops.data.dedup import dedup
from autoglm_ops.data.split import Shares, check_filled, check_leakage, describe, split
from autoglm_ops.data.tables import Sample, read_rows, write_rows
from autoglm_ops.monitoring.drift import profile
from autoglm_ops.stages.base import Context, Outcome


def run(context: Context) -> Outcome:
    """Writes {train,validation,gate}.parquet, dataset.json and reference.json. Raises BadData on a leak or an empty split."""
    prepare, data = context.settings.prepare, context.settings.data
    shares = Shares(prepare.holdout, prepare.validation, prepare.gate_days, data.window_days)
    distinct, repeated = dedup(read_rows(context.output("validate", "rows.parquet")))
    splits = split(distinct, shares)
    samples = splits.samples
    check_filled(samples)
    check_leakage(samples)
    for name in SPLITS:
        write_rows(context.out / f"{name}.parquet", samples[name], Sample)
    digest = digest_of({name: digest_path(context.out / f"{name}.parquet") for name in SPLITS})
    version = describe(splits, repeated, digest)
    version.write(context.out / "dataset.json")
    train = samples["train"]
    profile([row.text for row in train], [row.label for row in train]).write(context.out / "reference.json")
    return Outcome(facts={"dataset": version.digest, "rows": version.rows, "dropped": version.dropped})
