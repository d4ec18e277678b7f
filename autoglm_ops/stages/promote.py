"""Effect `promote`: move the champion to this run's version if the gate, the data and the moment allow it; then tag the commit."""

from __future__ import annotations

import time

from autoglm_ops.contracts.inputs import AsOf
from autoglm_ops.contracts.release import Champion, EvaluationReport, GateVerdict, Promotion
from autoglm_ops.release import moves, promotion, tags
from autoglm_ops.release.promotion import Candidate, Decision
from autoglm_ops.stages import releasing
from autoglm_ops.stages.base import Context, Outcome


def run(context: Context) -> Outcome:
    """Promotes, or says why not: a no is an answer and exits 0. Run again, it changes nothing.

    Raises Tampered (the ledger), UsageError (not registered; git), TryAgain (MLflow is away: no guess is made).
    """
    done, model = releasing.registered(context.root)
    candidate = Candidate(model=model, data_until=AsOf.read(context.input("as_of")).day, run=done.facts["run_key"])
    verdict = GateVerdict.read(context.output("gate", "verdict.json"))
    then = Champion.read(context.input("champion"))

    def decide(now: Champion, lines: list[Promotion]) -> Decision:
        enabled, taken = context.settings.release.promote, promotion.rolled_back(lines)
        return promotion.decide_promotion(verdict, candidate, now=now, then=then, enabled=enabled, rolled_back=taken)

    registry, ledger = releasing.open_registry(context.settings, context.home), releasing.open_ledger(context.home)
    request = moves.Request(model=model, run=candidate.run, actor="autoglm", reasons=())
    moved = moves.promote(registry, ledger, request, decide, time.time())
    if not moved.promoted:
        facts = {"promoted": False, "version": model.version, "tag": None}
        return Outcome(reasons=tuple(f"not promoted: {reason}" for reason in moved.reasons), facts=facts)
    return _tagged(context, moved)


def _tagged(context: Context, moved: moves.Moved) -> Outcome:
    metrics = _metrics(context)
    push = (
        context.origin.resolve() != context.root.resolve()
    )  # in a checkout, origin is the user's own remote: not ours to push to
    tag = tags.tag_model(context.root, version=moved.model.version, metrics=metrics, push=push)
    facts = {"promoted": True, "version": moved.model.version, "tag": tag, "metrics": metrics}
    return Outcome(reasons=moved.reasons, facts=facts)


def _metrics(context: Context) -> dict[str, float]:
    """Candidate, champion and baselines on the gate's rows, for the tag's message."""
    report = EvaluationReport.read(context.output("evaluate", "evaluation.json"))
    scores = {report.metric: report.candidate.estimate}
    scores |= {f"{report.metric} of {name}": value.estimate for name, value in report.baselines.items()}
    if report.champion:
        scores[f"{report.metric} of the champion before"] = report.champion.estimate
    return scores
