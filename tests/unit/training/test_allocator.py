"""Memory that is freed goes back to the system where the plan says that it is scarce, and is kept where there is enough."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.training.allocator import SCARCE, scarce

KEPT = """
import json, sys
from pathlib import Path
from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.training import allocator

def resident():
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmRSS'))
    return int(line.split()[1]) / 1024

settled = allocator.settle(ParallelPlan.model_validate_json(sys.argv[1]))
bytes(bytearray(24 << 20))  # freeing it raises the threshold of an allocator that may adapt
before = resident()
pins = []
for _ in range(60):  # tensors of 4 MB with something small that stays between them, as a step's are
    block = bytearray(b'x') * (4 << 20)
    pins.append((block, bytearray(3000)))
pins = [small for _, small in pins]
print(json.dumps([settled, resident() - before]))
"""


def plan(share: float, device: str = "cpu") -> ParallelPlan:
    return ParallelPlan.model_validate(
        {
            "ranks": 2, "micro_batch": 1, "accumulation": 1, "zero_stage": 1, "precision": "fp32", "device": device,
            "threads_per_rank": 1, "memory_bytes": {"total": int(share * 1000), "usable": 1000}, "fits": True, "reasons": (),
        }
    )  # fmt: skip


@pytest.mark.parametrize(("share", "device", "asked"), [(0.1, "cpu", False), (0.9, "cpu", True), (0.9, "cuda", False)])
def test_it_is_asked_for_where_a_rank_on_cpu_needs_much_of_its_share(share: float, device: str, asked: bool) -> None:
    assert scarce(plan(share, device)) is asked


def test_a_plan_that_says_nothing_of_memory_has_enough() -> None:
    assert not scarce(plan(1.0).model_copy(update={"memory_bytes": {}}))


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_freed_memory_goes_back() -> None:
    def kept(share: float) -> tuple[bool, float]:
        words = [sys.executable, "-c", KEPT, plan(share).to_json()]
        settled, left = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        return settled, left

    enough, much = kept(SCARCE / 2)
    little, left = kept(2 * SCARCE)
    assert (enough, little) == (False, True)
    assert left < 20 and much > 100, "240 MB were freed"
