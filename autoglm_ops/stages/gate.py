"""Judge the candidate. The stage succeeds whatever the verdict: a gate that says no is a green run."""

from __future__ import annotations

from autoglm_ops.contracts.release import Champion, EvaluationReport
from autoglm_ops.evaluation.gate import GatePolicy, decide
from autoglm_ops.stages.base import Context, Outcome


def run(context: Context) -> Outcome:
    """Writes verdict.json."""
    report = EvaluationReport.read(context.output("evaluate", "evaluation.json"))
    policy = GatePolicy(**context.settings.gate.model_dump())
    verdict = decide(report, Champion.read(context.input("champion")), policy)
    verdict.write(context.out / "verdict.json")
    return Outcome(reasons=verdict.reasons, facts={"verdict": verdict.verdict.value})
