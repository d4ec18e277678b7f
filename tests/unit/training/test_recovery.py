"""What a failure is taken for and what is done about it, as a table; and the properties that hold for any history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.training import ParallelPlan, RecoveryRules, TrainingFailure
from autoglm_ops.training.job import Failure
from autoglm_ops.training.recovery import HALVINGS, LONGEST_WAIT, Pauses, classify, decide, hang_limit, smaller

CAUSES = ["killed", "out-of-memory", "diverged", "disk-full", "lost-peer", "hang", "never-joined", "refused", "unknown"]
PLAN = ParallelPlan(
    ranks=2, micro_batch=8, accumulation=2, zero_stage=1, precision="fp32", device="cpu", threads_per_rank=1,
    memory_bytes={}, fits=True, reasons=(),
)  # fmt: skip
RULES = RecoveryRules(restarts=3)


def failed(cause: str = "killed", **update: object) -> TrainingFailure:
    base = {"attempt": 1, "cause": cause, "rank": 0, "step": 12, "kept": 10, "resumed": 0, "message": "m"}
    return TrainingFailure.model_validate(base | update)


@pytest.mark.parametrize(
    ("kind", "message", "exit_code", "number", "memory_kills", "cause"),
    [
        ("killed", "rank 1 was killed by SIGKILL", 75, 9, 0, "killed"),
        ("killed", "rank 1 was killed by SIGKILL", 75, 9, 1, "out-of-memory"),
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2.00 GiB", 1, 0, 0, "out-of-memory"),
        ("RuntimeError", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", 1, 0, 0, "out-of-memory"),
        ("MemoryError", "", 1, 0, 0, "out-of-memory"),
        ("OSError", "[Errno 28] No space left on device", 1, 0, 0, "disk-full"),
        ("OSError", "[Errno 30] Read-only file system: 'model'", 1, 0, 0, "disk-full"),
        ("Diverged", "diverged: the loss is nan at step 3", 3, 0, 0, "diverged"),
        ("BadData", "no rows", 3, 0, 0, "refused"),
        ("UsageError", "no such model", 2, 0, 0, "refused"),
        ("RuntimeError", "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]", 1, 0, 0, "lost-peer"),
        ("DistBackendError", "NCCL communicator was aborted", 1, 0, 0, "lost-peer"),
        ("hang", "rank 1 did not take a step for 31 s", 75, 0, 0, "hang"),
        ("never-joined", "rank 1 did not come to its first step", 75, 0, 0, "never-joined"),
        ("ValueError", "x", 1, 0, 0, "unknown"),
        ("exit", "ended with exit 5 and said nothing", 1, 0, 0, "unknown"),
    ],
)  # fmt: skip
def test_a_cause_is_read_from_the_evidence(
    kind: str, message: str, exit_code: int, number: int, memory_kills: int, cause: str
) -> None:
    assert classify(Failure(rank=1, kind=kind, exit=exit_code, message=message, signal=number), memory_kills) == cause


@pytest.mark.parametrize(
    ("history", "action", "said"),
    [
        ([failed()], "resume", "killed on rank 0 at step 12 (attempt 1): the same again from step 10"),
        ([failed("out-of-memory")], "halve-micro-batch", "micro-batch 8 -> 4, accumulation 2 -> 4"),
        ([failed("diverged")], "roll-back", "back to step 10, half the rate"),
        ([failed("diverged", resumed=10), failed("diverged", resumed=10)], "roll-back", "the checkpoint before step 10"),
        ([failed("unknown")], "resume", "the same again"),
        ([failed("unknown", resumed=10)] * 2, "quarantine", "twice in a row right after continuing from step 10"),
        ([failed("unknown", kept=0)] * 2, "give-up", "the same twice in a row, from the start: m"),
        ([failed("refused")], "give-up", "trying again changes nothing"),
        ([failed()] * 4, "give-up", "3 restarts in a row brought no newer checkpoint (recovery.restarts)"),
        ([failed(kept=kept) for kept in range(1, 12)], "resume", "from step 11"),
        ([failed("diverged", kept=kept) for kept in range(HALVINGS + 1)], "give-up", "still, after 3 times half the rate"),
    ],
)
def test_the_cheapest_thing_that_may_help_is_done(history: list[TrainingFailure], action: str, said: str) -> None:
    decision = decide(history, PLAN, RULES)
    assert decision.action == action
    assert said in decision.reason


def test_one_row_cannot_be_made_smaller() -> None:
    decision = decide([failed("out-of-memory")], PLAN.model_copy(update={"micro_batch": 1}), RULES)
    assert (decision.action, "one row already" in decision.reason) == ("give-up", True)


def test_the_first_restart_does_not_wait_and_the_next_ones_ever_longer() -> None:
    rules = RecoveryRules(restarts=9, backoff_seconds=2.0)
    waits = [decide([failed()] * count, PLAN, rules).wait_seconds for count in range(1, 8)]
    assert waits == [0, 2, 6, 14, 30, LONGEST_WAIT, LONGEST_WAIT]


@given(st.integers(1, 96), st.integers(1, 8))
def test_a_smaller_micro_batch_keeps_the_global_batch(micro: int, accumulation: int) -> None:
    plan = PLAN.model_copy(update={"micro_batch": micro, "accumulation": accumulation})
    if micro == 1:
        with pytest.raises(ValueError, match="one row"):
            smaller(plan)
        return
    assert smaller(plan).global_batch == plan.global_batch
    assert smaller(plan).micro_batch < micro


@given(st.lists(st.tuples(st.sampled_from(CAUSES), st.integers(0, 3)), min_size=1, max_size=12), st.integers(0, 4))
def test_recovery_always_ends(steps: list[tuple[str, int]], restarts: int) -> None:
    """More failures than restarts at one checkpoint give up, whatever they were."""
    history = [failed(cause, kept=kept) for cause, kept in steps]
    rules = RecoveryRules(restarts=restarts)
    decision = decide(history, PLAN, rules)
    tail = [failure.kept for failure in history[-(restarts + 1) :]]
    if len(tail) == restarts + 1 and len(set(tail)) == 1:
        assert decision.action == "give-up"
    assert decision.reason
    assert 0 <= decision.wait_seconds <= LONGEST_WAIT


def test_a_hang_is_judged_by_the_pauses_seen() -> None:
    free, fixed = RecoveryRules(), RecoveryRules(hang_seconds=5)
    assert hang_limit(free, Pauses(0.1, count=3), training=True) == 30
    assert hang_limit(free, Pauses(12.0, count=3), training=True) == 120
    assert hang_limit(free, Pauses(), training=False) == 300
    assert (hang_limit(fixed, Pauses(12.0), training=True), hang_limit(fixed, Pauses(), training=False)) == (5, 50)


@pytest.mark.parametrize(
    ("longest", "hangs", "limit"), [(0.3, 0, 10), (1.8, 0, 18), (12.0, 0, 120), (0.3, 1, 20), (0.3, 9, 30)]
)
def test_steps_of_known_length_show_a_hang_sooner_and_a_machine_that_stands_still_is_given_longer(
    longest: float, hangs: int, limit: float
) -> None:
    assert hang_limit(RecoveryRules(), Pauses(longest, count=20, hangs=hangs), training=True) == limit
