"""Moving the champion: promote, roll back, and notice that somebody moved it by hand.

Every move holds the ledger's lock from the first look to the last write, so movers of one machine are ordered. MLflow itself knows
no compare-and-set: movers on several machines need one $AUTOGLM_HOME.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoglm_ops.contracts.release import Champion, ModelRef, Promotion
from autoglm_ops.errors import Refused
from autoglm_ops.release.ledger import GENESIS, Ledger
from autoglm_ops.release.promotion import Decision, earlier_champions, label

if TYPE_CHECKING:
    from autoglm_ops.release.registry import Registry, Version

log = logging.getLogger(__name__)

Decide = Callable[[Champion, list[Promotion]], Decision]


@dataclass(frozen=True)
class Request:
    """Who wants what. `run` is the run key, or "" when a person asks."""

    model: ModelRef
    run: str
    actor: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Moved:
    """What happened. `promoted` is also True for a move that had been made before (`again`)."""

    promoted: bool
    model: ModelRef
    replaced: ModelRef | None
    reasons: tuple[str, ...]
    again: bool = False


def reconcile(registry: Registry, ledger: Ledger, now: float) -> ModelRef | None:
    """Finish a move that a crash cut short; put an alias moved by hand into the ledger. Returns the champion, honoured either way."""
    with ledger.hold():
        return _reconcile(registry, ledger, now)


def register(registry: Registry, ledger: Ledger, digest: str, source: str, run_id: str, tags: dict[str, str]) -> Version:
    """`Registry.register` by one at a time: it looks and then makes, and two who look at once would make two versions of one run.

    Raises TryAgain when MLflow is away.
    """
    with ledger.hold():
        return registry.register(digest, source, run_id, tags)


def promote(registry: Registry, ledger: Ledger, request: Request, decide: Decide, now: float) -> Moved:
    """Make `request.model` champion if `decide` says so of the champion of this moment. One run promotes its model once.

    Raises Tampered (the ledger's chain is broken), TryAgain (MLflow away, disk full; the same call then finishes it).
    """
    with ledger.hold():
        standing = _reconcile(registry, ledger, now)
        lines = history(ledger, registry.name)
        done = _already(lines, request, standing)
        if done is not None:
            return done
        decision = decide(registry.champion() if request.run else Champion(model=standing), lines)
        if not decision.promote:
            return Moved(False, request.model, standing, decision.reasons)
        reasons = (*request.reasons, *decision.reasons)
        _move(registry, ledger, _line("promote", request.model, standing, request.run, reasons, request.actor, now))
    return Moved(True, request.model, standing, reasons)


def rollback(
    registry: Registry, ledger: Ledger, request: Callable[[ModelRef], Request], now: float, version: int | None = None
) -> Moved:
    """Bring back the champion before this one, or the earlier champion `version`.

    `request(model)` may refuse it (its bytes are gone) before anything moves. Raises Refused when the ledger knows no such champion.
    """
    with ledger.hold():
        standing = _reconcile(registry, ledger, now)
        earlier = earlier_champions(history(ledger, registry.name))
        model = next((model for model in earlier if version in (None, model.version)), None)
        if model is None:
            known = ", ".join(map(label, earlier)) or "none"
            wanted = f"v{version}" if version else "an earlier champion"
            raise Refused(f"cannot roll back to {wanted}: champions before {label(standing)} in the ledger: {known}")
        asked = request(model)
        _move(registry, ledger, _line("rollback", model, standing, asked.run, asked.reasons, asked.actor, now))
    return Moved(True, model, standing, asked.reasons)


def history(ledger: Ledger, name: str) -> list[Promotion]:
    """The checked lines of one model's ledger."""
    return [line for line in ledger.lines() if name in {model.name for model in (line.model, line.replaced) if model}]


def _reconcile(registry: Registry, ledger: Ledger, now: float) -> ModelRef | None:
    found = registry.alias()
    standing = found.model if found else None
    _finish(ledger, standing)
    lines = history(ledger, registry.name)
    last = lines[-1].model if lines else None
    if _place(last) != _place(standing):
        log.warning("the champion was moved outside autoglm: %s -> %s; honoured", label(last), label(standing))
        reason = "the alias was moved in MLflow" if standing else "the alias was removed in MLflow"
        ledger.append(_line("observed", standing, last, "", (f"observed: {reason}",), "mlflow", now))
    return standing


def _finish(ledger: Ledger, standing: ModelRef | None) -> None:
    """A crash left an intent: the alias says whether the move was made; the ledger says whether it was written."""
    intent = ledger.intent()
    if intent is None:
        return
    written = any(line.model_copy(update={"previous": GENESIS}) == intent for line in ledger.lines()[-1:])
    if _place(intent.model) == _place(standing) and not written:
        ledger.append(intent)
    ledger.drop_intent()


def _move(registry: Registry, ledger: Ledger, line: Promotion) -> None:
    assert line.model is not None
    ledger.intend(line)
    registry.set_champion(line.model.version)
    ledger.append(line)


def _already(lines: list[Promotion], request: Request, standing: ModelRef | None) -> Moved | None:
    if not request.run:
        same = standing == request.model
        return Moved(True, request.model, None, (f"{label(standing)} is champion already",), again=True) if same else None
    for line in lines:
        if line.action == "promote" and line.run == request.run and line.model == request.model:
            note = () if standing == request.model else (f"{label(standing)} is champion now",)
            return Moved(True, request.model, line.replaced, ("this run promoted it before", *note), again=True)
    return None


def _place(model: ModelRef | None) -> tuple[str, int] | None:
    return (model.name, model.version) if model else None


def _line(
    action: str, model: ModelRef | None, replaced: ModelRef | None, run: str, reasons: tuple[str, ...], actor: str, at: float
) -> Promotion:
    return Promotion.model_validate(
        {
            "action": action,
            "model": model,
            "replaced": replaced,
            "run": run,
            "reasons": reasons,
            "actor": actor,
            "at": at,
            "previous": GENESIS,
        }
    )
