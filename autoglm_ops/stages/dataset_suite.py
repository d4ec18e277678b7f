"""A suite of expectations (flow.suite) as the check that a dataset passes before it is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from autoglm_ops.contracts.flow import BuiltDataset, SuiteReport
from autoglm_ops.contracts.record import digest_of, write_text
from autoglm_ops.data.build.finish import Check, unchecked
from autoglm_ops.data.build.sample import sample, size
from autoglm_ops.errors import BadData, SettingsError
from autoglm_ops.settings import Settings
from autoglm_ops.settings.layers import parse_yaml
from autoglm_ops.stages.dataset_drift import before, moved
from autoglm_ops.validation import suite as suites
from autoglm_ops.validation.page import documents_page
from autoglm_ops.validation.verdict import judge_documents, judge_drift

REPORT, PAGE = "_validation.json", "_validation.html"


def check(settings: Settings, origin: Path, home: Path, location: str) -> Check:
    """What flow.suite asks of a dataset built from `location`. One that fails is refused with BadData; its report is kept in
    `home/refused/<digest>/`.

    The suite is read now, so that a wrong one is said before any work. Raises SettingsError.
    """
    where = settings.flow.suite
    if where is None:
        return unchecked
    suite = _read(settings, origin, where)
    asked = digest_of(suite.model_dump(mode="json"))

    def accepted(dataset: BuiltDataset, files: Sequence[Path]) -> Mapping[str, str]:
        datasets = home / "datasets"
        published = report(datasets / dataset.digest)
        if published and published.asked == asked:
            return {}  # the digest is the documents': they would answer the same
        named = {"dataset": dataset.digest, "suite": where, "asked": asked}
        previous = before(datasets, location, dataset.digest) if suite.drift else None
        found = examine(dataset, files, suite, named, previous)
        texts = {REPORT: found.to_json(), PAGE: documents_page(found)}
        if found.verdict == "refused":
            raise _refusal(found, texts, home / "refused" / dataset.digest)
        return texts

    return accepted


def examine(
    dataset: BuiltDataset, files: Sequence[Path], suite: suites.DocumentSuite, named: Mapping[str, str], previous: Path | None
) -> SuiteReport:
    """The expectations on the documents in `files`, or on a sample of them, and how far these are from the dataset in `previous`.

    `named`: what the report calls itself.
    """
    from autoglm_ops.validation import gx

    most = size(dataset.kept, dataset.characters)
    columns = sample(files, dataset.kept, most, dataset.recipe.seed)
    found = gx.run(suite.documents, columns, rows=dataset.kept)
    judged = judge_documents(named, dataset.kept, len(columns["id"]), found)
    if previous is None or not columns["id"]:
        return judged
    return judge_drift(judged, previous.name, moved(suite.drift, previous, dataset, columns), suite.drift)


def _refusal(found: SuiteReport, texts: Mapping[str, str], kept: Path) -> BadData:
    for name, text in texts.items():
        write_text(kept / name, text)
    told = "; ".join(found.reasons)
    return BadData(f"the dataset is refused: {told}; correct flow.suite or the data; see {kept / PAGE}", found.reasons)


def _read(settings: Settings, origin: Path, where: str) -> suites.DocumentSuite:
    path = origin / where
    if not path.is_file():
        raise SettingsError(f"flow.suite = {where!r} does not exist; name a file of expectations, relative to the checkout")
    monitor = {"psi": settings.monitor.psi, "kl": settings.monitor.kl}
    known = {**settings.validation.model_dump(), **monitor, "labels": settings.data.labels}
    return suites.parse_documents(parse_yaml(path.read_text(encoding="utf-8"), where), known, where)


def report(folder: Path) -> SuiteReport | None:
    """What a published dataset's validation saw; None when none was asked for. Raises Tampered."""
    return SuiteReport.read(folder / REPORT) if (folder / REPORT).exists() else None
