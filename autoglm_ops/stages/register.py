"""Effect `register`: the model folder → the store, and a version in the registry that names its digest. Once per run key."""

from __future__ import annotations

from autoglm_ops.contracts.inputs import AsOf, RunInfo
from autoglm_ops.contracts.release import EvaluationReport
from autoglm_ops.release import moves, tags
from autoglm_ops.stages import releasing, runner
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.store import open_store


def run(context: Context) -> Outcome:
    """Registers whatever the gate said: a rejected model can be looked at, and promoted by hand. Raises TryAgain, Refused."""
    from autoglm_ops.release import registry as names

    digest = open_store(context.settings.store.uri, context.home).put(context.output("train", "model"))
    tracked = runner.require("track", context.root).facts
    report = EvaluationReport.read(context.output("evaluate", "evaluation.json"))
    labels = {
        names.RUN_KEY: releasing.effect_key(context),
        names.CONTENT_KEY: _content_key(context),
        names.DATA_UNTIL: AsOf.read(context.input("as_of")).day,
        names.METRIC: repr(report.candidate.estimate),
        names.GIT_COMMIT: tags.commit_of(context.root, "HEAD") or "",
    }
    registry = releasing.open_registry(context.settings, context.home)
    ledger = releasing.open_ledger(context.home)
    version = moves.register(registry, ledger, digest, f"{tracked['artifacts']}/model", tracked["mlflow_run"], labels)
    facts = {"name": version.model.name, "version": version.model.version, "digest": digest, "run_key": labels[names.RUN_KEY]}
    return Outcome(facts=facts)


def _content_key(context: Context) -> str:
    """What the model was made of. A checkout was not opened as a run and has no content key: its model never ends a run early."""
    path = context.input("run")
    return RunInfo.read(path).content_key if path.exists() else ""
