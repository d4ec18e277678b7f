"""What a failed attempt was, and what to do about it. Pure: evidence and history in, a decision with its reason out.

A cause is read from what is known: the signal, the exception's name and text, a count of out-of-memory kills, a beat that stopped. What
may help is done, cheapest first: the same again from the newest checkpoint; a smaller micro-batch after want of memory; an older state
and half the rate after divergence; another checkpoint when two attempts died right after continuing from one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from autoglm_ops.contracts.training import (
    Cause,
    ParallelPlan,
    RecoveryDecision,
    RecoveryRules,
    TrainingChange,
    TrainingFailure,
)
from autoglm_ops.training.job import AnyJob, Failure
from autoglm_ops.training.standing import reduced, with_plan

HALVINGS = 3
"""Of the learning rate, or steps down in micro-batch: what an eighth does not cure, a sixteenth will not."""
FLOOR, FACTOR, START = 30.0, 10.0, 300.0
"""Seconds: a hang is no beat for FACTOR times the longest pause so far, at least FLOOR; while ranks start or save, START."""
KNOWN, SHORT = 20, 10.0
"""After KNOWN pauses the step's length is known, and SHORT seconds are the least that means a hang; twice that after each hang so far,
since a machine that stands still now and then must not be restarted for it again and again."""
LONGEST_WAIT = 60.0

_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|not enough memory|MemoryError", re.IGNORECASE)
_DISK = re.compile(r"No space left|Errno 28|Disk quota exceeded|Read-only file system", re.IGNORECASE)
_PEER = re.compile(
    r"Connection (closed|reset)|Broken pipe|Socket (Timeout|closed)|closed by (the )?(remote )?peer|gloo|NCCL|Timed out waiting|store",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Evidence:
    """What is known beside the rank's own words. `memory_kills`: how many processes the kernel killed for want of memory meanwhile."""

    memory_kills: int = 0
    step: int = 0
    kept: int = 0
    resumed: int = 0


def classify(failure: Failure, memory_kills: int = 0) -> Cause:
    """The cause of one failure."""
    said = f"{failure.kind}: {failure.message}"
    if failure.kind in ("hang", "never-joined"):
        return "hang" if failure.kind == "hang" else "never-joined"
    if failure.signal:
        return "out-of-memory" if memory_kills else "killed"
    if failure.kind == "Diverged":
        return "diverged"
    if failure.exit in (2, 3):
        return "refused"
    if _MEMORY.search(said):
        return "out-of-memory"
    if _DISK.search(said):
        return "disk-full"
    return "lost-peer" if _PEER.search(failure.message) else "unknown"


def told(failure: Failure, attempt: int, evidence: Evidence) -> TrainingFailure:
    """The failure as it is recorded."""
    return TrainingFailure(
        attempt=attempt,
        cause=classify(failure, evidence.memory_kills),
        rank=failure.rank,
        step=evidence.step,
        kept=evidence.kept,
        resumed=evidence.resumed,
        message=failure.message[:500],
    )


def decide(history: Sequence[TrainingFailure], plan: ParallelPlan, rules: RecoveryRules) -> RecoveryDecision:
    """What to do after `history[-1]`; `plan` is the one that failed."""
    last = history[-1]
    row = _in_a_row(history)
    where = f"{last.cause} on rank {last.rank} at step {last.step} (attempt {last.attempt})"
    if last.cause == "refused":
        return _give_up(f"{where}: trying again changes nothing")
    if row > rules.restarts:
        return _give_up(f"{where}: {rules.restarts} restarts in a row brought no newer checkpoint (recovery.restarts)")
    wait = min(LONGEST_WAIT, rules.backoff_seconds * (2 ** (row - 1) - 1))
    if last.cause == "out-of-memory":
        return _less_memory(last, plan, where, wait)
    if last.cause == "diverged":
        if _count(history, "diverged") > HALVINGS:
            return _give_up(f"{where}: still, after {HALVINGS} times half the rate")
        aside = last.resumed if _same_again(history) else 0
        back = f"the checkpoint before step {aside}" if aside else f"step {last.kept}"
        return RecoveryDecision(
            action="roll-back", reason=f"{where}: back to {back}, half the rate", wait_seconds=wait, set_aside=aside
        )
    if last.cause == "unknown" and _same_again(history):
        if last.resumed:
            why = f"{where}: twice in a row right after continuing from step {last.resumed}; that checkpoint is set aside"
            return RecoveryDecision(action="quarantine", reason=why, wait_seconds=wait, set_aside=last.resumed)
        return _give_up(f"{where}: the same twice in a row, from the start: {last.message[:200]}")
    return RecoveryDecision(action="resume", reason=f"{where}: the same again from step {last.kept}", wait_seconds=wait)


def changed(job: AnyJob, decision: RecoveryDecision, failure: TrainingFailure) -> AnyJob:
    """The job of the next attempt. What it gives may differ from the undisturbed run only where it carries a new change, which says so."""
    job = job.model_copy(update={"attempt": job.attempt + 1})
    if decision.action == "halve-micro-batch":
        plan = smaller(job.plan)
        why = (
            f"out of memory at micro-batch {job.plan.micro_batch}: {plan.micro_batch} from here on, accumulation {plan.accumulation}, "
            f"the same global batch of {plan.global_batch}; equal within rounding"
        )
        return _with(with_plan(job, plan), "micro-batch", why, plan.micro_batch)
    if decision.action == "roll-back":
        return _with(job, "rate", f"half the rate from here on, after: {failure.message}")
    return job


def smaller(plan: ParallelPlan) -> ParallelPlan:
    """The next smaller micro-batch with the same global batch: half, or what the smallest divisor leaves. Raises ValueError at one."""
    divisor = next((number for number in range(2, plan.micro_batch + 1) if plan.micro_batch % number == 0), None)
    if divisor is None:
        raise ValueError("a micro-batch of one row cannot be made smaller")
    return reduced(plan, plan.micro_batch // divisor)


@dataclass(frozen=True)
class Pauses:
    """What is known of a group's pauses between two beats: the longest, in seconds, of how many; and how often it hung before."""

    longest: float = 0.0
    count: int = 0
    hangs: int = 0

    def longer(self, seconds: float) -> Pauses:
        return replace(self, longest=max(self.longest, seconds), count=self.count + 1)


def hang_limit(rules: RecoveryRules, pauses: Pauses, *, training: bool) -> float:
    """Seconds without a beat that mean a hang. A rank beats in every step, at most five times a second; one that starts or saves has longer."""
    if rules.hang_seconds is not None:
        return rules.hang_seconds * (1 if training else FACTOR)
    least = min(FLOOR, SHORT * 2**pauses.hangs) if pauses.count >= KNOWN else FLOOR
    return max(least, FACTOR * pauses.longest) if training else START


def _less_memory(last: TrainingFailure, plan: ParallelPlan, where: str, wait: float) -> RecoveryDecision:
    if plan.micro_batch == 1:
        return _give_up(
            f"{where}: the micro-batch is one row already; train on more ranks, at a higher ZeRO stage, or on more memory"
        )
    less = smaller(plan)
    why = f"{where}: micro-batch {plan.micro_batch} -> {less.micro_batch}, accumulation {plan.accumulation} -> {less.accumulation}"
    return RecoveryDecision(action="halve-micro-batch", reason=why, wait_seconds=wait)


def _in_a_row(history: Sequence[TrainingFailure]) -> int:
    """Failures since the newest checkpoint last moved on, the last one included."""
    kept = history[-1].kept
    row = 0
    for failure in reversed(history):
        if failure.kept < kept:
            return max(1, row)
        row += 1
    return row


def _same_again(history: Sequence[TrainingFailure]) -> bool:
    last = history[-1]
    before = history[-2] if len(history) > 1 else None
    return before is not None and (before.cause, before.resumed, before.kept) == (last.cause, last.resumed, last.kept)


def _count(history: Sequence[TrainingFailure], cause: Cause) -> int:
    return sum(failure.cause == cause for failure in history)


def _give_up(reason: str) -> RecoveryDecision:
    return RecoveryDecision(action="give-up", reason=reason)


def _with(job: AnyJob, kind: Any, why: str, rows: int = 0) -> AnyJob:
    change = TrainingChange(number=len(job.changes) + 1, kind=kind, why=why, micro_batch=rows)
    return job.model_copy(update={"changes": (*job.changes, change)})
