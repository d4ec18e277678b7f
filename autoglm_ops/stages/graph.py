"""Every stage and effect by name, in pipeline order. A stage's module is imported only when it runs."""

from __future__ import annotations

from importlib import import_module

from autoglm_ops.errors import UsageError
from autoglm_ops.stages.base import Spec, Stage


def _stage(name: str, *code: str, after: str = "", inputs: str = "", params: str = "", dvc: bool = True) -> Spec:
    own = (f"autoglm_ops/stages/{name}.py", *(path if path == "expectations" else f"autoglm_ops/{path}" for path in code))
    return Spec(
        name, f"autoglm_ops.stages.{name}:run", tuple(after.split()), tuple(inputs.split()), tuple(params.split()), own, dvc
    )


SPECS: dict[str, Spec] = {
    spec.name: spec
    for spec in (
        _stage("ingest", "data", inputs="source as_of feedback", params="data"),
        _stage("validate", "validation", "expectations", after="ingest", params="data validation"),
        _stage(
            "prepare",
            "data",
            "monitoring/drift.py",
            "evaluation/forgetting.py",
            "evaluation/baseline.py",
            "evaluation/metrics.py",
            "evaluation/paired.py",
            after="validate",
            params="prepare data seed",
        ),
        _stage("tokenize", "data", "evaluation/baseline.py", after="prepare", inputs="folders", params="tokenize seed"),
        _stage(
            "plan",
            "planning",
            "training/models.py",
            after="tokenize",
            inputs="hardware folders",
            params="plan model train tokenize",
        ),
        _stage(
            "tune",
            "tuning",
            "training",
            "feedback/levers.py",
            "planning",
            "stages/desk.py",
            "stages/plan.py",
            "stages/sizes.py",
            after="tokenize plan",
            inputs="patches folders history",
            params="tune train model seed",
        ),
        _stage(
            "train",
            "training",
            "monitoring/embedding.py",
            after="prepare tokenize plan tune",
            inputs="folders",
            params="train model tokenize seed",
        ),
        _stage(
            "evaluate",
            "evaluation",
            "training",
            "monitoring/drift.py",
            after="prepare tokenize train",
            inputs="champion",
            params="evaluate monitor tokenize seed",
        ),
        _stage("gate", "evaluation", after="evaluate", inputs="as_of champion signals", params="gate"),
        _stage(
            "report",
            "evaluation",
            "tuning",
            after="validate prepare plan tune train evaluate gate",
            inputs="champion patches",
            params="evaluate",
        ),
        _stage("track", after="prepare plan tune train evaluate gate", dvc=False),
        _stage("register", after="train evaluate gate track", inputs="as_of", dvc=False),
        _stage("promote", after="evaluate gate register", inputs="as_of champion", dvc=False),
        _stage("deploy", after="gate", dvc=False),
        _stage("summary", after="validate prepare plan tune train evaluate gate report", dvc=False),
    )
}

PIPELINE = tuple(name for name, spec in SPECS.items() if spec.dvc)
EFFECTS = tuple(name for name, spec in SPECS.items() if not spec.dvc)


def find(name: str) -> Spec:
    """The spec called `name`. Raises UsageError listing the known ones."""
    if name not in SPECS:
        raise UsageError(f"unknown stage {name!r}; known: {', '.join(SPECS)}")
    return SPECS[name]


def function(spec: Spec) -> Stage:
    """Import and return the stage's function."""
    module, _, attribute = spec.target.partition(":")
    stage: Stage = getattr(import_module(module), attribute)
    return stage
