"""What the demo breaks, and that it breaks nothing else."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from autoglm_ops.errors import UsageError
from autoglm_ops.stages.faults import NOISE, reported, schedule, slowed

LABELS = ["neg", "pos"] * 500


def test_the_schedule_is_read_and_checked() -> None:
    assert schedule("6:label-noise, 8:latency") == {6: "label-noise", 8: "latency"} and schedule("none") == {}
    for bad in ("", "6", "x:latency", "6:thunder"):
        with pytest.raises(UsageError, match="is no fault"):
            schedule(bad)


def test_without_a_fault_every_label_is_true_and_ten_readers_share_them() -> None:
    said = reported(LABELS, 5, None, 7)
    assert [label for label, _ in said] == LABELS and len({reader for _, reader in said}) == 10


def test_noise_is_spread_and_a_liar_lies_always() -> None:
    noisy = [label != truth for (label, _), truth in zip(reported(LABELS, 6, "label-noise", 7), LABELS, strict=True)]
    assert abs(sum(noisy) / len(LABELS) - NOISE) < 0.05
    lies = {
        reader
        for (label, reader), truth in zip(reported(LABELS, 8, "hostile-reporter", 7), LABELS, strict=True)
        if label != truth
    }
    assert lies == {"reader-3"}
    assert reported(LABELS, 6, "label-noise", 7) == reported(LABELS, 6, "label-noise", 7)


def test_a_slowed_process_is_slow_and_runs_again_afterwards() -> None:
    child = subprocess.Popen(
        [sys.executable, "-uc", "import sys\nfor line in sys.stdin: print(line, end='')"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert child.stdin is not None and child.stdout is not None

    def ask() -> float:
        started = time.monotonic()
        child.stdin.write("hello\n")
        assert child.stdout.readline() == "hello\n"
        return time.monotonic() - started

    try:
        ask()
        with slowed(child.pid, really=True):
            time.sleep(0.05)
            assert ask() > 0.3
        ask()
    finally:
        child.kill()
        child.communicate()
