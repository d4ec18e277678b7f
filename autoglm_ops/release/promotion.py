"""Whether a candidate becomes champion, and what the ledger's lines mean. Pure: records in, answers with reasons out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autoglm_ops.contracts.release import Champion, GateVerdict, ModelRef, Promotion, Verdict


@dataclass(frozen=True)
class Candidate:
    """A registered version that asks to be champion. data_until: the last day of its data, ISO."""

    model: ModelRef
    data_until: str
    run: str


@dataclass(frozen=True)
class Decision:
    """Promote or not. The first word of each reason is a stable code."""

    promote: bool
    reasons: tuple[str, ...]


def decide_promotion(
    verdict: GateVerdict,
    candidate: Candidate,
    *,
    now: Champion,
    then: Champion,
    enabled: bool = True,
    rolled_back: frozenset[str] = frozenset(),
) -> Decision:
    """Promote only what was compared with the champion of this moment (`now`), and only forward in time.

    then: the champion the evaluation compared with. rolled_back: digests somebody took back (see `rolled_back`). Every rule
    that refuses is named, not only the first.
    """
    against = []
    if verdict.verdict is not Verdict.PROMOTE:
        against.append(f"gate: {verdict.verdict}: {'; '.join(verdict.reasons)}")
    if now.model != then.model:
        against.append(
            f"champion-changed: evaluated against {label(then.model)}, but {label(now.model)} is champion now; retrain"
        )
    if now.data_until and candidate.data_until < now.data_until:
        against.append(f"older-data: its data ends {candidate.data_until}, the champion's {now.data_until}; registered only")
    if candidate.model.digest in rolled_back:
        against.append(
            f"rolled-back: this model was taken back before; promote it by hand: autoglm promote {candidate.model.version}"
        )
    if not enabled:
        against.append("off: release.promote is false; registered only")
    if against:
        return Decision(False, tuple(against))
    return Decision(True, verdict.reasons)


def earlier_champions(lines: Iterable[Promotion]) -> list[ModelRef]:
    """Whom a rollback can bring back, the last first.

    Every promotion and every move by hand stands on what it replaced; a rollback takes away all that stood on its model.
    """
    standing: list[ModelRef | None] = []
    for line in lines:
        if line.action == "rollback" and line.model in standing[:-1]:
            del standing[_last(standing[:-1], line.model) + 1 :]
        elif line.action != "rollback":
            standing.append(line.model)
    top = standing[-1] if standing else None
    return [model for model in reversed(standing[:-1]) if model is not None and model != top]


def _last(standing: list[ModelRef | None], model: ModelRef | None) -> int:
    return max(place for place, other in enumerate(standing) if other == model)


def rolled_back(lines: Iterable[Promotion]) -> frozenset[str]:
    """Digests that a rollback took away and nobody has promoted since."""
    taken: set[str] = set()
    for line in lines:
        if line.action == "rollback" and line.replaced:
            taken.add(line.replaced.digest)
        if line.model:
            taken.discard(line.model.digest)
    return frozenset(taken)


def champion_at(lines: Iterable[Promotion], time: float) -> ModelRef | None:
    """Who was champion at `time` (seconds since the epoch), by the last line not later than it."""
    champion = None
    for line in lines:
        if line.at <= time:
            champion = line.model
    return champion


def label(model: ModelRef | None) -> str:
    """`autoglm v3`, or `no champion`."""
    return f"{model.name} v{model.version}" if model else "no champion"
