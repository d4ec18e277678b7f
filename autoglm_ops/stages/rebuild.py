"""`autoglm replay`: a closed run built again from its commit, and what came out beside what it had recorded (spec P10)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from autoglm_ops.contracts.record import Completion, Record
from autoglm_ops.errors import UsageError
from autoglm_ops.stages import graph, runner, runs
from autoglm_ops.stages.workplace import Workplace
from autoglm_ops.versioning import git

OWN = frozenset({"scratch", "runs", "replays", "dagruns", "dvc"})
"""What a replay must not find of the run's: unfinished studies and checkpoints, and a cache to lay results down from."""


class ReplayedStage(Record):
    """One stage: how many output files are the same to the byte, and those that are `different` (another digest, missing, or new)."""

    stage: str
    same: int
    different: tuple[str, ...]
    seconds: float


class Replay(Record):
    """What a replay found. `identical` when every file of every stage is the one that was recorded."""

    run: str
    commit: str
    identical: bool
    stages: tuple[ReplayedStage, ...]


Watch = Callable[[ReplayedStage], None]


def rebuild(run: str, origin: Path, home: Path, watch: Watch, only: Sequence[str] = ()) -> Replay:
    """Run the stages of run `run` again, with the code, settings and inputs of its commit, and compare every output's digest.

    Nothing of the run's own work is used: no cache, no checkpoint, no study. Effects (registry, champion, tracking) are not repeated.
    `only`: the stages up to the last of these. Raises UsageError for a run that was not closed, and what a stage raises.
    """
    commit = _commit(run, origin)
    place = home / "replays" / run
    shutil.rmtree(place, ignore_errors=True)
    root = place / "workspace"
    git.git(origin, "clone", "--quiet", "--no-tags", "--branch", f"{runs.BRANCH}{run}", str(origin), str(root))
    recorded = _recorded(root, only)
    Workplace(run=f"replay-{run}", origin=str(origin), home=str(_home(home, place))).write(root / ".workspace.json")
    found: list[ReplayedStage] = []
    try:
        for name, before in recorded.items():
            after = runs.launch(root, name)
            found.append(compared(before, after))
            watch(found[-1])
    finally:
        shutil.rmtree(place, ignore_errors=True)
    identical = not any(stage.different for stage in found)
    return Replay(run=run, commit=commit, identical=identical, stages=tuple(found))


def compared(before: Completion, after: Completion) -> ReplayedStage:
    """Pure."""
    names = before.outputs.keys() | after.outputs.keys()
    different = tuple(sorted(name for name in names if before.outputs.get(name) != after.outputs.get(name)))
    return ReplayedStage(stage=before.stage, same=len(names) - len(different), different=different, seconds=after.seconds)


def _commit(run: str, origin: Path) -> str:
    try:
        return git.git(origin, "rev-parse", "--verify", "--end-of-options", f"refs/heads/{runs.BRANCH}{run}^{{commit}}")
    except UsageError as error:
        known = git.git(
            origin, "for-each-ref", "--format=%(refname:lstrip=3)", "--sort=-committerdate", f"refs/heads/{runs.BRANCH}"
        )
        raise UsageError(
            f"no closed run {run!r} in this checkout; latest: {', '.join(known.split()[:3]) or 'none'}; `autoglm runs list` shows all"
        ) from error


def _recorded(root: Path, only: Sequence[str]) -> dict[str, Completion]:
    """What the run's stages had written, in order; the clone is rid of it."""
    for name in only:
        graph.find(name)
    paths = {name: runner.completion_path(root, name) for name in graph.PIPELINE}
    found = {name: Completion.read(path) for name, path in paths.items() if path.exists()}
    shutil.rmtree(root / "completed", ignore_errors=True)
    names = [name for name, completion in found.items() if completion.exit == 0]
    last = max((names.index(name) for name in only if name in names), default=len(names) - 1)
    if not names or (only and not set(only) & set(names)):
        raise UsageError("the run's commit holds no finished stage of these; `autoglm runs show` says what it has")
    return {name: found[name] for name in names[: last + 1]}


def _home(home: Path, place: Path) -> Path:
    """A home in which the run's models and registry are found, but none of its work."""
    made = place / "home"
    made.mkdir()
    for path in home.iterdir():
        if path.name not in OWN:
            (made / path.name).symlink_to(path)
    return made
