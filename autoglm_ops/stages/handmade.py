"""Promotion and rollback by a person: the same moves as a run's, asked for at the command line or in Airflow."""

from __future__ import annotations

import time
from pathlib import Path

from autoglm_ops.contracts.release import Champion, ModelRef, Promotion
from autoglm_ops.errors import Refused
from autoglm_ops.release import moves, tags
from autoglm_ops.release.moves import Moved, Request
from autoglm_ops.release.promotion import Decision
from autoglm_ops.settings import Settings, load
from autoglm_ops.stages import releasing, workplace

BRANCH = "runs/"


def promote_by_hand(root: Path, version: int, actor: str, reason: str) -> Moved:
    """Make `version` champion. Its bytes are checked first. Raises UsageError, Refused, Tampered, TryAgain."""
    settings, home = load(root / "params.yaml"), workplace.home(root)
    registry = releasing.open_registry(settings, home)
    found = registry.version(version)
    _check(settings, home, found.model)
    request = Request(model=found.model, run="", actor=actor, reasons=(f"by-hand: {reason}",))
    moved = moves.promote(registry, releasing.open_ledger(home), request, _always, time.time())
    _tag(root, version, found.tags)
    releasing.announce(home, moved.model)
    return moved


def roll_back(root: Path, version: int | None, actor: str, reason: str) -> Moved:
    """Bring back the champion before this one (or the earlier champion `version`), its bytes checked before anything moves."""
    settings, home = load(root / "params.yaml"), workplace.home(root)
    registry = releasing.open_registry(settings, home)

    def request(model: ModelRef) -> Request:
        _check(settings, home, model)
        return Request(model=model, run="", actor=actor, reasons=(f"rollback: {reason}",))

    moved = moves.rollback(registry, releasing.open_ledger(home), request, time.time(), version)
    releasing.announce(home, moved.model)
    return moved


def checked_lines(root: Path) -> list[Promotion]:
    """The ledger, its chain checked, with what MLflow says now laid against it. Without a registry yet there is nothing to ask."""
    settings, home = load(root / "params.yaml"), workplace.home(root)
    ledger = releasing.open_ledger(home)
    lines = ledger.lines()
    if settings.tracking.uri is None and not (home / "mlflow" / "mlflow.db").exists():
        return lines
    moves.reconcile(releasing.open_registry(settings, home), ledger, time.time())
    return ledger.lines()


def _always(now: Champion, lines: list[Promotion]) -> Decision:
    return Decision(True, ())


def _check(settings: Settings, home: Path, model: ModelRef) -> None:
    """Raises before anything moves when the model's bytes are gone or differ."""
    if not model.digest:
        raise Refused(
            f"{model.name} v{model.version} has no digest, so its bytes cannot be checked; choose a version autoglm registered"
        )
    releasing.discard(releasing.fetch(settings, home, model))


def _tag(root: Path, version: int, labels: dict[str, str]) -> None:
    """Tag the commit the version came from, when this checkout has it and nobody tagged it before."""
    from autoglm_ops.release.registry import GIT_COMMIT, RUN_KEY

    if tags.commit_of(root, f"refs/tags/{tags.PREFIX}{version}"):
        return
    branch = f"refs/heads/{BRANCH}{labels.get(RUN_KEY, '')}"
    commit = tags.commit_of(root, branch) or tags.commit_of(root, labels.get(GIT_COMMIT) or branch)
    if commit:
        tags.tag_model(root, version=version, commit=commit, push=False)
