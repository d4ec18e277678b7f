"""What glibc's allocator does with freed memory: keeps it for the next tensor, or, where memory is scarce, gives it back.

By default its threshold for memory of its own (mmap) grows with what is freed, and a step's tensors then leave a heap that never
shrinks: ranks on CPU held up to 2.1 times what was allocated at once. With a fixed threshold they held what the plan says, within a
sixth, and trained a quarter slower, since every tensor's pages are new (tests/benchmarks/bench_memory.py; a 24 M model of bench_train.py).
So it is fixed only where the plan needs so much of a rank's share that twice as much might not be there.
"""

from __future__ import annotations

import ctypes
import logging

from autoglm_ops.contracts.training import ParallelPlan

log = logging.getLogger(__name__)

SCARCE = 0.4
"""Share of a rank's usable memory from which on freed memory goes back: 2.1 times that is 0.84 of it."""
THRESHOLD = 128 << 10
"""Bytes from which on a block is memory of its own: glibc's first value."""
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of mallopt(3)."""


def scarce(plan: ParallelPlan) -> bool:
    """Whether ranks of `plan` on CPU should give freed memory back. A plan that says nothing of memory has enough."""
    needed, usable = plan.memory_bytes.get("total", 0), plan.memory_bytes.get("usable", 0)
    return plan.device == "cpu" and needed > SCARCE * usable > 0


def settle(plan: ParallelPlan) -> bool:
    """Have this process give freed memory back if `plan` asks for it; whether it does from here on. It stays so."""
    if not scarce(plan):
        return False
    given = give_back()
    log.info("memory is scarce (%.0f %% of what a rank may use): %s", *_told(plan, given))
    return given


def give_back() -> bool:
    """Fix glibc's thresholds at their first value; False where the C library has none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, THRESHOLD) and mallopt(_TRIM_THRESHOLD, THRESHOLD))


def _told(plan: ParallelPlan, given: bool) -> tuple[float, str]:
    share = 100 * plan.memory_bytes["total"] / plan.memory_bytes["usable"]
    return (
        share,
        "freed memory is given back, steps are slower" if given else "this C library cannot be told to give freed memory back",
    )
