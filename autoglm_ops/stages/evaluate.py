"""Score candidate, champion and baselines on the gate's rows, which no model was trained on."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm_ops.contracts.feedback import DriftReport, Profile
from autoglm_ops.contracts.record import digest_path, write_text
from autoglm_ops.contracts.release import Champion, EvaluationReport, ModelRef
from autoglm_ops.errors import BadData
from autoglm_ops.evaluation import baseline, plots
from autoglm_ops.evaluation.assess import Answers, Method, Sizes, assess, flat_metrics
from autoglm_ops.monitoring.drift import drift
from autoglm_ops.stages.base import Context, Outcome

if TYPE_CHECKING:
    from autoglm_ops.training.inference import Classifier

Columns = dict[str, list[Any]]


def run(context: Context) -> Outcome:
    """Writes evaluation.json, metrics.json, predictions.parquet and plots/*.png.

    Raises BadData without gate rows, Tampered when a model differs from its digest, TryAgain when the champion's store is away.
    """
    from autoglm_ops.training.inference import Classifier

    gate, train = _columns(context.output("prepare", "gate.parquet")), _columns(context.output("prepare", "train.parquet"))
    if not gate["text"]:
        raise BadData(
            "out/prepare/gate.parquet has no rows to judge on; raise prepare.holdout or prepare.gate_days, or add data"
        )
    champion, folder = Champion.read(context.input("champion")), context.output("train", "model")
    started = time.monotonic()
    candidate, scores = _ask(Classifier.load(folder), gate["text"], context)
    asked = time.monotonic()
    rival, sizes, moved = None, Sizes(_size(folder)), tuple[DriftReport, ...]()
    if champion.model is not None:
        place = _fetch(champion.model, context)
        rival, _ = _ask(Classifier.load(place, champion.model.digest), gate["text"], context)
        sizes, moved = Sizes(_size(folder), _size(place)), _drift(place, context)
    answers = _answers(gate, train, candidate, rival)
    report = assess(answers, _method(context), sizes, moved)
    _write(context, report, answers, gate["id"], scores)
    facts = {"metric": report.metric, "rows": report.rows, "candidate": report.candidate.estimate}
    return Outcome(facts=facts, measured={"candidate_rows_per_second": round(report.rows / (asked - started), 1)})


def _columns(path: Path) -> Columns:
    import pyarrow.parquet as pq

    columns: Columns = pq.read_table(path).to_pydict()
    return columns


def _ask(model: Classifier, texts: list[str], context: Context) -> tuple[list[str], list[float]]:
    """The model's answer to each text, and the probability it gives it."""
    chances = model.predict(texts, context.settings.evaluate.batch_size)
    return [model.labels[best] for best in chances.argmax(axis=1)], [float(value) for value in chances.max(axis=1)]


def _fetch(model: ModelRef, context: Context) -> Path:
    """The champion's folder, laid down by digest in scratch, so a retry does not fetch it again."""
    from autoglm_ops.store import open_store

    place = context.scratch / "champion"
    if place.exists() and digest_path(place) != model.digest:
        shutil.rmtree(place)  # scratch is ours alone, and an earlier attempt died in it
    place.parent.mkdir(parents=True, exist_ok=True)
    return open_store(context.settings.store.uri, context.home).get(model.digest, place)


def _drift(champion: Path, context: Context) -> tuple[DriftReport, ...]:
    """The training texts now against those the champion was trained on."""
    limits = context.settings.monitor
    now = Profile.read(context.output("prepare", "reference.json"))
    return drift(Profile.read(champion / "reference.json"), now, limits.psi, limits.kl, limits.min_rows)


def _answers(gate: Columns, train: Columns, candidate: list[str], champion: list[str] | None) -> Answers:
    return Answers(
        texts=gate["text"],
        days=gate["day"],
        truth=gate["label"],
        candidate=candidate,
        champion=champion,
        majority=[baseline.majority(train["label"])] * len(candidate),
        tfidf=baseline.tfidf(train["text"], train["label"], train["weight"], gate["text"]),
    )


def _method(context: Context) -> Method:
    settings = context.settings
    return Method(settings.evaluate.metric, settings.evaluate.resamples, settings.seed)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write(context: Context, report: EvaluationReport, answers: Answers, ids: list[str], scores: list[float]) -> None:
    report.write(context.out / "evaluation.json")
    numbers = flat_metrics(report, answers)
    write_text(context.out / "metrics.json", json.dumps(numbers, sort_keys=True, indent=2) + "\n")
    _predictions(context.out / "predictions.parquet", answers, ids, scores)
    right = [one == other for one, other in zip(answers.truth, answers.candidate, strict=True)]
    images = {
        "confusion": plots.confusion(report.confusion),
        "days": plots.days(report.slices, report.metric),
        "reliability": plots.reliability(scores, right),
    }
    (context.out / "plots").mkdir()
    for name, image in images.items():
        (context.out / "plots" / f"{name}.png").write_bytes(image)


def _predictions(path: Path, answers: Answers, ids: list[str], scores: list[float]) -> None:
    """One row per gate row. The texts stay in prepare's output."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = answers.columns()
    table = {"id": ids, "day": answers.days, "label": columns.pop("truth"), "candidate": columns.pop("candidate")}
    pq.write_table(pa.table({**table, "candidate_score": scores, **dict(sorted(columns.items()))}), path)
