"""Judge the candidate. The stage succeeds whatever the verdict: a gate that says no is a green run."""

from __future__ import annotations

from autoglm_ops.contracts.inputs import AsOf
from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.release import Champion, EvaluationReport
from autoglm_ops.evaluation.gate import GatePolicy, decide, drift_against
from autoglm_ops.stages.base import Context, Outcome


def run(context: Context) -> Outcome:
    """Writes verdict.json."""
    report = EvaluationReport.read(context.output("evaluate", "evaluation.json"))
    policy, champion = GatePolicy(**context.settings.gate.model_dump()), Champion.read(context.input("champion"))
    said, until = SignalsOfDay.read(context.input("signals")), AsOf.read(context.input("as_of")).day
    verdict = decide(report, champion, policy, drift_against(champion, said, until, policy))
    verdict.write(context.out / "verdict.json")
    return Outcome(reasons=verdict.reasons, facts={"verdict": verdict.verdict.value})
