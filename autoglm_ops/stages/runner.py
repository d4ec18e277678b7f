"""Runs one stage: check what it reads, run it, publish its output whole, and write the record that it ran.

The same function serves `dvc repro`, Airflow's launchers and a person at a terminal (design §1).
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path

from autoglm_ops.contracts.record import Completion, StageRecord, digest_path, digest_tree
from autoglm_ops.errors import AutoGLMError, Refused, SettingsError, Tampered, UsageError
from autoglm_ops.settings import PLACEMENT, Settings, load, load_tree
from autoglm_ops.stages import graph, workplace
from autoglm_ops.stages.base import Context, Outcome, Spec

log = logging.getLogger(__name__)


def run_stage(name: str, root: Path, *, overrides: tuple[str, ...] = ()) -> Completion:
    """Run stage `name` in workspace `root` (a folder that holds params.yaml).

    Raises UsageError, SettingsError, Tampered (an input differs from its record), or what the stage raises. Whatever happens,
    `completed/<name>.json` says so.
    """
    spec = graph.find(name)
    settings = _settings(root, overrides)
    attempt = 1 + (attempts(root, name))
    started, clock = time.time(), time.monotonic()
    inputs: dict[str, str] = {}

    def complete(exit_code: int, reasons: tuple[str, ...], outputs: dict[str, str], outcome: Outcome) -> Completion:
        record = Completion(
            stage=name,
            run=workplace.run_key(root),
            attempt=attempt,
            started=started,
            seconds=round(time.monotonic() - clock, 3),
            cached=False,
            exit=exit_code,
            reasons=reasons,
            inputs=inputs,
            outputs=outputs,
            facts=outcome.facts,
            measured=outcome.measured,
        )
        record.write(completion_path(root, name))
        return record

    completion_path(root, name).unlink(missing_ok=True)
    try:
        inputs.update(check_inputs(spec, root))
        _staged(spec, root)
        context = _context(spec, root, settings, inputs)
        outcome = graph.function(spec)(context)
        outputs = _publish(spec, context, inputs, outcome) if spec.dvc else {}
    except BaseException as error:
        code = error.exit_code if isinstance(error, AutoGLMError) else 1
        reasons = error.reasons if isinstance(error, Refused) else (f"{type(error).__name__}: {error}",)
        _keep_refused(spec, root)
        complete(code, reasons, {}, Outcome())
        raise
    return complete(0, outcome.reasons, outputs, outcome)


def completion_path(root: Path, name: str) -> Path:
    return root / "completed" / f"{name}.json"


def require(name: str, root: Path) -> Completion:
    """The completion of stage `name`, its outputs checked against their digests.

    An output that DVC laid down from its cache has no completion here; its own record then serves, once checked, and the
    completion says `cached`. Raises UsageError when the stage never ran, Refused when it failed, Tampered when bytes differ.
    """
    path = completion_path(root, name)
    record_path = root / "out" / name / "record.json"
    completion = Completion.read(path) if path.exists() else None
    if completion is not None and completion.exit != 0:
        raise Refused(f"stage {name} ended with exit {completion.exit}: {'; '.join(completion.reasons)}; run it again first")
    if not graph.find(name).dvc:
        if completion is None:
            raise UsageError(f"stage {name} has not run here; run `autoglm stage {name}` first")
        return completion
    if not record_path.exists():
        raise UsageError(f"out/{name} is missing; run `autoglm stage {name}` or `dvc repro` first")
    outputs = check_outputs(name, root)
    if completion is None or completion.outputs != outputs:
        completion = adopt(name, root)
    return completion


def restored(name: str, root: Path) -> Completion:
    """As `require`, where DVC vouches for the output: an attempt that failed here (a quota, a lost pod) has nothing to say of it."""
    path = completion_path(root, name)
    failed = path.exists() and Completion.read(path).exit != 0
    return adopt(name, root) if failed else require(name, root)


def adopt(name: str, root: Path) -> Completion:
    """Record that DVC restored this stage's output instead of computing it. The output's own record is the evidence."""
    record = StageRecord.read(root / "out" / name / "record.json")
    outputs = check_outputs(name, root)
    completion = Completion(
        stage=name,
        run=workplace.run_key(root),
        attempt=attempts(root, name) + 1,
        started=time.time(),
        seconds=0.0,
        cached=True,
        exit=0,
        reasons=record.reasons,
        inputs=record.inputs,
        outputs=outputs,
        facts=record.facts,
    )
    completion.write(completion_path(root, name))
    return completion


def check_outputs(name: str, root: Path) -> dict[str, str]:
    """The digests of a stage's output files, equal to its record. Raises Tampered naming the first that differs."""
    folder = root / "out" / name
    record = StageRecord.read(folder / "record.json")
    found = {f"out/{name}/{path}": digest for path, digest in digest_tree(folder, skip=("record.json",)).items()}
    for path in sorted(found.keys() | record.outputs.keys()):
        if found.get(path) != record.outputs.get(path):
            what = (
                "is missing" if path not in found else "is not in the record" if path not in record.outputs else "was changed"
            )
            raise Tampered(f"{path} {what} since stage {name} wrote it; run `autoglm stage {name}` again")
    return found


def check_inputs(spec: Spec, root: Path) -> dict[str, str]:
    """Digests of everything the stage reads."""
    digests = {
        f"out/{name}": digest_path(root / "out" / name) for name in spec.after if require(name, root) and graph.find(name).dvc
    }
    for name in spec.inputs:
        path = root / "inputs" / f"{name}.json"
        if not path.exists():
            raise UsageError(f"inputs/{name}.json is missing; run `autoglm snapshot` first")
        digests[f"inputs/{name}.json"] = digest_path(path)
    return digests


def _settings(root: Path, overrides: tuple[str, ...]) -> Settings:
    """Settings of the workspace. An override of a key that changes outputs is refused here: DVC would not see it."""
    path = root / "params.yaml"
    base, _ = load_tree(path, environ={})
    tree, origin = load_tree(path, overrides=overrides)
    for key, source in sorted(origin.items()):
        if source != path.name and key.split(".")[0] not in PLACEMENT and _at(tree, key) != _at(base, key):
            raise SettingsError(
                f"{key} = {_at(tree, key)!r} ({source}) differs from {path.name} ({_at(base, key)!r}): a stage's output would be "
                f"cached under another value's name; write it into params.yaml, or give it to `autoglm snapshot --set {key}=…`"
            )
    return load(path, overrides=overrides)


def _at(tree: dict[str, object], dotted: str) -> object:
    node: object = tree
    if dotted.startswith("tune.space."):
        section = tree.get("tune")
        space = section.get("space") if isinstance(section, dict) else None
        return space.get(dotted.removeprefix("tune.space.")) if isinstance(space, dict) else None
    for part in dotted.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def context_of(name: str, root: Path) -> Context:
    """Where stage `name` would work, its inputs checked; for what is done beside the stage, which writes no output."""
    spec = graph.find(name)
    return _context(spec, root, _settings(root, ()), check_inputs(spec, root))


def _staged(spec: Spec, root: Path) -> None:
    if spec.dvc:
        shutil.rmtree(_staging(root, spec.name), ignore_errors=True)
        _staging(root, spec.name).mkdir(parents=True)


def _context(spec: Spec, root: Path, settings: Settings, inputs: dict[str, str]) -> Context:
    home = workplace.home(root)
    return Context(
        root=root,
        out=_staging(root, spec.name),
        home=home,
        origin=workplace.origin(root),
        scratch=workplace.scratch(home, spec, settings, inputs),
        run=workplace.run_key(root),
        settings=settings,
    )


def _publish(spec: Spec, context: Context, inputs: dict[str, str], outcome: Outcome) -> dict[str, str]:
    """Record digests beside the outputs, then swap the staged folder in whole."""
    outputs = {f"out/{spec.name}/{path}": digest for path, digest in digest_tree(context.out).items()}
    StageRecord(stage=spec.name, reasons=outcome.reasons, inputs=inputs, outputs=outputs, facts=outcome.facts).write(
        context.out / "record.json"
    )
    final = context.root / "out" / spec.name
    shutil.rmtree(final, ignore_errors=True)
    os.replace(context.out, final)
    return outputs


def _keep_refused(spec: Spec, root: Path) -> None:
    """What a refusing or failing stage had written stays readable under refused/<stage>, never where a next stage looks."""
    staging = _staging(root, spec.name)
    if not spec.dvc or not staging.exists():
        return
    kept = root / "refused" / spec.name
    shutil.rmtree(kept, ignore_errors=True)
    kept.parent.mkdir(parents=True, exist_ok=True)
    if any(staging.iterdir()):
        os.replace(staging, kept)
    else:
        staging.rmdir()


def _staging(root: Path, name: str) -> Path:
    return root / "out" / f".{name}.staging"


def attempts(root: Path, name: str) -> int:
    """How often the stage has run here."""
    path = completion_path(root, name)
    try:
        return Completion.read(path).attempt if path.exists() else 0
    except Tampered:
        log.warning("completed/%s.json was torn; its attempt count starts again", name)
        return 0
