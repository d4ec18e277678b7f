"""Keeps a training group going: watches its ranks' beats, judges how an attempt ended, acts on the decision, and tells what it did.

    trail = supervisor.train(job, folder, RecoveryRules(restarts=3))

Ranks are forked again from the group's warm process, so a restart costs seconds. What was decided stands in the trail, with its reason;
what changed the weights stands in the training record too (`TrainingRecord.changes`).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.training import RecoveryDecision, RecoveryRules, TrainingFailure
from autoglm_ops.errors import AutoGLMError, Refused, TryAgain
from autoglm_ops.training import kept, standing
from autoglm_ops.training.beat import Beat, read
from autoglm_ops.training.job import AnyJob, Failure
from autoglm_ops.training.recovery import START, Evidence, Pauses, changed, decide, hang_limit, told
from autoglm_ops.training.warm import WarmGroup, error_of

log = logging.getLogger(__name__)

LOOK = 0.1
"""Seconds between two looks at the beats."""


@dataclass
class Trail:
    """What it took. `restarts` counts attempts after the first; `events` are failures with what was done about them, in order."""

    restarts: int = 0
    cold_starts: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def as_measured(self) -> dict[str, Any]:
        return {"restarts": self.restarts, "cold_starts": self.cold_starts, "recovery": self.events}


def train(job: AnyJob, folder: Path, rules: RecoveryRules | None = None, group: WarmGroup | None = None) -> Trail:
    """Run `job` to its end, whatever dies on the way, within `rules`; `folder` is for notes and beats. `group` is a warm one to use and keep.

    Raises what the last attempt failed with once recovery gives up, its reasons added: TryAgain, Refused, or AutoGLMError.
    """
    if group is None:
        with WarmGroup(job) as own:
            return train(job, folder, rules, own)
    rules = rules or job.rules
    trail, history, pauses = Trail(), list[TrainingFailure](), Pauses()
    job = standing.recalled(job)
    while True:
        watch = _Watch(group, folder, rules, job, pauses)
        failure = watch.attempt()
        trail.cold_starts = group.cold_starts
        if failure is None:
            return trail
        history.append(told(failure, job.attempt, watch.evidence()))
        decision = decide(history, job.plan, rules)
        _note(trail, history[-1], decision, watch.seconds)
        if decision.action == "give-up":
            raise _final(failure, trail, decision)
        if decision.set_aside:
            kept.set_aside(Path(job.scratch), decision.set_aside)
        pauses = replace(watch.pauses, hangs=sum(failure.cause == "hang" for failure in history))
        known, job = len(job.changes), changed(job, decision, history[-1])
        if len(job.changes) > known:
            standing.note(job)
        trail.restarts += 1
        time.sleep(decision.wait_seconds)


class _Watch:
    """One attempt, watched to its end."""

    def __init__(self, group: WarmGroup, folder: Path, rules: RecoveryRules, job: AnyJob, pauses: Pauses) -> None:
        self._group, self._folder, self._rules, self._job = group, folder, rules, job
        self._beats: dict[int, Beat] = {}
        self.pauses = pauses
        self._begun = self._begun_ranks = time.monotonic()
        self._kills = _memory_kills()

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._begun, 3)

    def attempt(self) -> Failure | None:
        self._group.start(self._job, self._folder)
        while not self._group.ended(LOOK):
            self._look()
            hung = self._hung(time.monotonic())
            if hung is not None and self._can_write():
                self._group.stop(hung)
        self._look()
        return self._group.failure

    def evidence(self) -> Evidence:
        steps = [beat.step for beat in self._beats.values()]
        resumed = [beat.resumed for beat in self._beats.values() if beat.phase == "training"]
        return Evidence(
            memory_kills=_memory_kills() - self._kills,
            step=max(steps, default=0),
            kept=kept.newest_step(Path(self._job.scratch)),
            resumed=max(resumed, default=0),
        )

    def _look(self) -> None:
        for beat in read(self._folder, self._job.attempt):
            before = self._beats.get(beat.rank)
            if before is not None and before.phase == beat.phase == "training":
                self._paused(beat.monotonic - before.monotonic)
            self._beats[beat.rank] = beat

    def _paused(self, seconds: float) -> None:
        if seconds > 0:
            self.pauses = self.pauses.longer(seconds)

    def _hung(self, now: float) -> Failure | None:
        """The rank that has not moved for too long, the stopped one or else the one furthest behind."""
        if not self._group.pids:
            self._begun_ranks = now
            why = f"the training group has forked no rank in {START:g} s; its log above says why"
            return (
                Failure(rank=-1, kind="never-joined", exit=TryAgain.exit_code, message=why)
                if now - self._begun > START
                else None
            )
        missing = [rank for rank in self._group.pids if rank not in self._beats]
        phases = {beat.phase for beat in self._beats.values()}
        starting = bool(missing or phases & {"joining", "building"})
        limit = hang_limit(self._rules, self.pauses, training=not starting and "saving" not in phases)
        last = max([self._begun_ranks, *(beat.monotonic for beat in self._beats.values())])
        if now - last <= limit or (phases == {"done"} and not missing):
            return None
        rank = self._to_blame(missing)
        state = _state(self._group.pids[rank])
        doing = f"did not come to its first step ({self._phase(rank)})" if starting else "did not take a step"
        why = f"rank {rank} {doing} for {now - last:.1f} s (limit {limit:.1f} s); its process is {state}"
        return Failure(rank=rank, kind="never-joined" if starting else "hang", exit=TryAgain.exit_code, message=why)

    def _to_blame(self, missing: list[int]) -> int:
        stopped = [rank for rank, pid in self._group.pids.items() if _state(pid) == "stopped"]
        if stopped or missing:
            return (stopped or missing)[0]
        moving = [beat for beat in self._beats.values() if beat.phase != "done"]
        return min(moving, key=lambda beat: (beat.step, beat.monotonic)).rank

    def _phase(self, rank: int) -> str:
        return self._beats[rank].phase if rank in self._beats else "not heard of"

    def _can_write(self) -> bool:
        """A disk that takes no beats makes nobody hang."""
        probe = self._folder / ".probe"
        try:
            probe.write_bytes(b"beat")
            probe.unlink()
        except OSError as error:
            log.warning("%s takes no beats (%s): whether a rank hangs cannot be told", self._folder.name, error)
            self._begun_ranks = time.monotonic()
            return False
        return True


def _note(trail: Trail, failure: TrainingFailure, decision: RecoveryDecision, seconds: float) -> None:
    said = decision.model_dump(mode="json", exclude={"set_aside"} if not decision.set_aside else None)
    trail.events.append({**failure.model_dump(mode="json"), **said, "seconds": seconds})
    log.warning("training %s: %s", decision.action, decision.reason)


def _final(failure: Failure, trail: Trail, decision: RecoveryDecision) -> AutoGLMError:
    error = error_of(failure)
    if trail.restarts == 0:
        return error
    message = f"{error}; gave up after {trail.restarts} restarts: {decision.reason}"
    reasons = tuple(f"{event['action']}: {event['reason']}" for event in trail.events)
    return Refused(message, reasons) if isinstance(error, Refused) else type(error)(message)


def _memory_kills() -> int:
    """How often the kernel has killed in this control group for want of memory; 0 where it does not say."""
    for name in ("memory.events", "memory/memory.oom_control"):
        try:
            lines = (Path("/sys/fs/cgroup") / name).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return 0


def _state(pid: int) -> str:
    try:
        letter = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "gone"
    return {"T": "stopped", "D": "waiting for a disk", "Z": "dead", "R": "running"}.get(letter, "asleep")
