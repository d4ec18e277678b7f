"""Faults in the checkpoint layer: SIGKILL at random moments, and an error, a short write or a kill at every system call of a save.

    python tests/benchmarks/chaos_checkpoint.py --kills 2000 --rounds 3      # or: make chaos-checkpoint

A process with torch already imported forks a child per attempt; the child saves checkpoint after checkpoint and is killed, or saves
one under strace, which injects a fault at the k-th call of its kind. After each attempt the newest checkpoint that verifies is read in
this process. It must be the one before or the new one, bit for bit; the new one when the child said that it was kept; and an error must
be said by the child. Leaves .autoglm/bench/chaos-checkpoint.json; ends with 1 when one of these did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from autoglm_ops.training import checkpoint
from autoglm_ops.training.progress import Progress, Weights

ROOT = Path(__file__).parents[2]
CALLS = ("openat", "write", "fsync", "rename", "mkdir", "read")
FAULTS = ("error=ENOSPC", "error=EIO", "error=EROFS", "retval=1", "signal=KILL")
SAID, FAILED = 0, 3  # the child's exit codes: the checkpoint was kept; it was not, and that was said


class Engine:
    """Weights and optimizer state that follow from the step."""

    rank, ranks, accumulation, resumable = 0, 1, 1, True

    def __init__(self, step: int) -> None:
        self.at = step

    def live(self) -> Weights:
        whole = {f"master@0:{name}": torch.full((128, 128), self.at + place / 8) for place, name in enumerate("abc")}
        return whole | {f"exp_avg@0:{name.partition(':')[2]}": tensor / 3 for name, tensor in whole.items()}


def save(root: Path, step: int) -> None:
    engine = Engine(step)
    checkpoint.save(root, "run", engine, Progress(step=step, best=engine.live()))  # type: ignore[arg-type]


def newest(root: Path) -> int:
    """The step of the newest that verifies; -1 when there is none, -2 when its bytes are another step's."""
    found = checkpoint.newest(root, "run")
    if found is None:
        return -1
    progress, _, state = found
    meant = Engine(progress.step)
    parts = [(state, meant.live()), (progress.best, meant.live())]
    same = all(
        left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in right) for left, right in parts
    )
    return progress.step if same else -2


def killed(root: Path, chance: random.Random) -> dict[str, Any]:
    """A child that saves without end, killed within 60 ms; it writes each step that was kept to a pipe."""
    shutil.rmtree(root, ignore_errors=True)
    save(root, 1)
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        for step in range(2, 10**6):
            save(root, step)
            os.write(tell, step.to_bytes(4, "big"))
    os.close(tell)
    time.sleep(chance.uniform(0.001, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(told, "rb") as pipe:
        said = pipe.read()
    last = int.from_bytes(said[-4:], "big") if said else 1
    started = time.perf_counter()
    found = newest(root)
    return {"ok": found in (last, last + 1), "said": last, "found": found, "seconds": time.perf_counter() - started}


def injected(root: Path, call: str, fault: str, at: int) -> dict[str, Any] | None:
    """One save with `fault` at the `at`-th `call`; None when the save makes fewer of them, so that the fault was never injected."""
    shutil.rmtree(root, ignore_errors=True)
    save(root, 1)
    child = os.fork()
    if child == 0:
        signal.sigwait({signal.SIGUSR1})  # until strace is there; no call that a fault is injected into
        os._exit(_attempt(root))
    log = root.with_name("strace")
    command = ["strace", "-f", "-o", str(log), "-p", str(child), f"-einject={call}:{fault}:when={at}", f"-etrace={call}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    while "attached" not in (line := tracer.stderr.readline()):
        if not line:
            raise SystemExit("strace could not attach: this campaign needs it, and the right to trace its own children")
    os.kill(child, signal.SIGUSR1)
    _, status = os.waitpid(child, 0)
    tracer.stderr.read()
    tracer.wait()
    if "INJECTED" not in (text := log.read_text(errors="replace")) and "+++ killed by SIGKILL" not in text:
        return None
    code = os.waitstatus_to_exitcode(status)
    found = newest(root)
    ok = found == 2 if code == SAID else found in (1, 2) if code == -signal.SIGKILL else found == 1 and code == FAILED
    return {"ok": ok, "code": code, "found": found, "call": call, "fault": fault, "at": at}


def _attempt(root: Path) -> int:
    try:
        save(root, 2)
    except OSError:
        return FAILED
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 4
    return SAID


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=1, help="times every fault is injected at every call")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    console, chance = Console(highlight=False), random.Random(6)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "run"
        ended = [killed(root, chance) for _ in track(range(arguments.kills), "kills", console=Console(stderr=True))]
        faults = [one for _ in range(arguments.rounds) for one in everywhere(root)] if shutil.which("strace") else []
    wrong = [one for one in [*ended, *faults] if not one["ok"]]
    seconds = sorted(one["seconds"] for one in ended) or [0.0]
    record = {
        "kills": len(ended), "faults": len(faults), "wrong": wrong,
        "recovery_ms": {"p50": 1e3 * seconds[len(seconds) // 2], "p95": 1e3 * seconds[int(0.95 * (len(seconds) - 1))]},
    }  # fmt: skip
    bench = ROOT / ".autoglm" / "bench"
    bench.mkdir(parents=True, exist_ok=True)
    (bench / "chaos-checkpoint.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    console.print(_table(ended, faults))
    console.print(f"read back in {record['recovery_ms']['p50']:.1f} ms (p95 {record['recovery_ms']['p95']:.1f} ms)")
    if not faults:
        console.print("no strace on this machine: no faults were injected")
    for one in wrong[:10]:
        console.print(f"wrong: {one}")
    sys.exit(bool(wrong))


def everywhere(root: Path) -> list[dict[str, Any]]:
    """Every fault at the first, second, … call of its kind, until the save makes no more of them."""
    found = []
    for call in CALLS:
        for fault in FAULTS:
            if fault == "retval=1" and call != "write":
                continue  # a lie that only a write can tell
            at = 1
            while (one := injected(root, call, fault, at)) is not None:
                found.append(one)
                at += 1
    return found


def _table(ended: list[dict[str, Any]], faults: list[dict[str, Any]]) -> Table:
    table = Table("fault", "injected", "kept before", "kept new", "wrong", box=None)
    table.add_row("SIGKILL, random moment", *_row([(one["found"] == one["said"], one["ok"]) for one in ended]))
    by: dict[str, list[tuple[bool, bool]]] = {}
    for one in faults:
        by.setdefault(f"{re.sub('.*=', '', one['fault'])} at {one['call']}", []).append((one["found"] == 1, one["ok"]))
    for name, rows in by.items():
        table.add_row(name, *_row(rows))
    return table


def _row(rows: list[tuple[bool, bool]]) -> list[str]:
    counts = Counter(before for before, _ in rows)
    return [str(n) for n in (len(rows), counts[True], counts[False], sum(not ok for _, ok in rows))]


if __name__ == "__main__":
    main()
