"""validate: quarantine bad rows, run the expectations, refuse a dataset that is over its budget or fails one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable

from autoglm_ops.contracts.data import WEIGHTS_FILE, ValidationReport
from autoglm_ops.contracts.record import write_text
from autoglm_ops.errors import BadData, SettingsError
from autoglm_ops.settings.layers import parse_yaml
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.validation import suite as suites
from autoglm_ops.validation import tables
from autoglm_ops.validation.page import page
from autoglm_ops.validation.rules import Limits, Quarantined, budget, sift
from autoglm_ops.validation.verdict import judge


def run(context: Context) -> Outcome:
    """Writes rows.parquet, quarantine.jsonl, report.json, report.html. Raises BadData when refused; the report is kept all the same."""
    from autoglm_ops.validation import gx

    limits, data = context.settings.validation, context.settings.data
    suite = _suite(context)
    table = tables.read(context.output("ingest", "rows.parquet"))
    rejects = tables.read_rejects(context.output("ingest", "rejects.jsonl"))
    expectations = gx.run(suite.raw, table.to_pydict())
    whole = all(item.success for item in expectations if item.name.startswith("expect_table_"))
    labels = frozenset(data.labels) if data.labels is not None else None
    kept, bad = sift(table.to_pylist() if whole else (), Limits(limits.min_chars, limits.max_chars, labels))
    quarantined = [*rejects, *bad]
    if whole:
        expectations += gx.run(suite.accepted, {name: [row[name] for row in kept] for name in table.column_names})
    allowed = budget(len(kept) + len(quarantined), limits.budget_share, limits.budget_rows)
    report = judge(len(kept), [item.reason for item in quarantined], allowed, expectations)
    _write(context, report, quarantined)
    if report.verdict == "refused":
        raise BadData(f"the data is refused: {'; '.join(report.reasons)}; see refused/validate/report.html", report.reasons)
    tables.write(context.out / "rows.parquet", kept, table.schema)
    if (weights := context.output("ingest", WEIGHTS_FILE)).exists():
        shutil.copyfile(weights, context.out / WEIGHTS_FILE)
    return Outcome(facts={"rows_in": report.rows_in, "rows_out": report.rows_out, "quarantined": report.quarantined})


def _suite(context: Context) -> suites.Suite:
    where = context.settings.validation.suite
    path = context.root / where
    if not path.is_file():
        raise SettingsError(
            f"validation.suite = {where!r} does not exist; name a file of expectations, relative to the checkout"
        )
    known = {**context.settings.validation.model_dump(), "labels": context.settings.data.labels}
    return suites.parse(parse_yaml(path.read_text(encoding="utf-8"), where), known, where)


def _write(context: Context, report: ValidationReport, quarantined: Iterable[Quarantined]) -> None:
    lines = (json.dumps(item._asdict(), ensure_ascii=False, sort_keys=True) + "\n" for item in quarantined)
    write_text(context.out / "quarantine.jsonl", "".join(lines))
    report.write(context.out / "report.json")
    write_text(context.out / "report.html", page(report))
