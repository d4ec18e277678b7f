"""Faults in the checkpoint layer: SIGKILL at random moments, and an error, a short write or a kill at every system call of a save.

    python tests/benchmarks/chaos_checkpoint.py --kills 2000 --faults 10000      # or: make chaos-checkpoint

A process with torch already imported forks a child per attempt; the child saves checkpoint after checkpoint and is killed, or saves
one under strace, which injects a fault at the k-th call of its kind. After each attempt the newest checkpoint that verifies is read in
this process. It must be the one before or the new one, bit for bit; the new one when the child said that it was kept; and an error must
be said by the child.

One strace serves all k of a kind of call and a fault: it follows the forks of a server and counts each child's calls from 0, and a child
spends `LAST` - k calls on nothing before it saves. Rounds differ in what is saved and in what lies there already. `--seconds` ends a
slice in order; its numbers are added to those of earlier slices of the same code in .autoglm/bench/chaos-checkpoint.json unless
`--fresh`. Ends with 1 when one of the promises did not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from autoglm_ops.contracts.record import digest_of, digest_path, write_text
from autoglm_ops.training import checkpoint
from autoglm_ops.training.progress import Progress, Weights

ROOT = Path(__file__).parents[2]
CALLS = ("openat", "write", "fsync", "rename", "mkdir", "read")
FAULTS = ("error=ENOSPC", "error=EIO", "error=EROFS", "retval=1", "signal=KILL")
UNITS = [(call, fault) for call in CALLS for fault in FAULTS if fault != "retval=1" or call == "write"]  # only a write lies so
LAST = 64
"""The call, counted from a child's birth, that a fault is injected at: more than a save makes of one kind."""
SAID, FAILED = 0, 3  # the child's exit codes: the checkpoint was kept; it was not, and that was said
MOMENT = "SIGKILL, random moment"


class Engine:
    """Weights and optimizer state that follow from the step; `width` is their size."""

    rank, ranks, accumulation, resumable = 0, 1, 1, True

    def __init__(self, step: int, width: int = 128) -> None:
        self.at, self._width = step, width

    def live(self) -> Weights:
        size = (self._width, self._width)
        whole = {f"master@0:{name}": torch.full(size, self.at + place / 8) for place, name in enumerate("abc")}
        return whole | {f"exp_avg@0:{name.partition(':')[2]}": tensor / 3 for name, tensor in whole.items()}


def save(root: Path, step: int, width: int = 128) -> None:
    engine = Engine(step, width)
    checkpoint.save(root, "run", engine, Progress(step=step, best=engine.live()))


def newest(root: Path, width: int = 128) -> int:
    """The step of the newest that verifies; -1 when there is none, -2 when its bytes are another step's."""
    found = checkpoint.newest(root, "run")
    if found is None:
        return -1
    progress, _, state = found
    meant = Engine(progress.step, width).live()
    same = all(
        left.keys() == meant.keys() and all(torch.equal(left[key], meant[key]) for key in meant)
        for left in (state, progress.best)
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
    ok = found in (last, last + 1)
    return {"ok": ok, "new": found > last, "said": last, "found": found, "seconds": time.perf_counter() - started}


class Shape:
    """What a round saves: tensors of `width` x `width` as step `before` + 1, where `before` checkpoints were saved already."""

    def __init__(self, number: int) -> None:
        self.width, self.before = (32, 64, 5, 128, 17)[number % 5], 1 + number % 3

    def lay(self, template: Path) -> None:
        for step in range(1, self.before + 1):
            save(template, step, self.width)


class Server:
    """A process that forks a child per order and tells how it ended. Orders go over a socket: none of CALLS."""

    def __init__(self, root: Path, call: str) -> None:
        self._here, there = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._here.close()
            with suppress(BrokenPipeError):
                _serve(there, root, _idle_call(call))
            os._exit(0)
        there.close()

    def attempt(self, at: int, shape: Shape) -> tuple[int, int]:
        """(pid, exit code, negative for a signal) of a child whose `at`-th call is the `LAST` one of its life."""
        self._here.send(json.dumps([LAST - at, shape.before + 1, shape.width]).encode())
        pid, code = json.loads(self._here.recv(64))
        return pid, code

    def end(self) -> None:
        self._here.close()
        os.waitpid(self.pid, 0)


def _serve(orders: socket.socket, root: Path, idle: Callable[[], object]) -> None:
    while order := orders.recv(64):
        spend, step, width = json.loads(order)
        child = os.fork()
        if child == 0:
            for _ in range(spend):
                with suppress(OSError):
                    idle()
            os._exit(_attempt(root, step, width))
        _, status = os.waitpid(child, 0)
        orders.send(json.dumps([child, os.waitstatus_to_exitcode(status)]).encode())


def _idle_call(call: str) -> Callable[[], object]:
    """A call of that kind that changes nothing."""
    null, nowhere = os.open(os.devnull, os.O_RDWR), "/nowhere-at-all/file"
    return {
        "openat": lambda: os.open(nowhere, os.O_RDONLY), "write": lambda: os.write(null, b""), "fsync": lambda: os.fsync(null),
        "rename": lambda: Path(nowhere).rename(nowhere), "mkdir": lambda: Path(nowhere).mkdir(), "read": lambda: os.read(null, 1),
    }[call]  # fmt: skip


def _attempt(root: Path, step: int, width: int) -> int:
    try:
        save(root, step, width)
    except OSError:
        return FAILED
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 4
    return SAID


@contextmanager
def traced(pid: int, call: str, fault: str, log: Path) -> Iterator[None]:
    """strace on `pid` and all it forks, a file `log`.PID each, while inside."""
    inject = f"-einject={call}:{fault}:when={LAST}"
    command = ["strace", "-ff", "-o", str(log), "-p", str(pid), inject, f"-etrace={call}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    while "attached" not in (line := tracer.stderr.readline()):
        if not line:
            raise SystemExit("strace could not attach: this campaign needs it, and the right to trace its own children")
    try:
        yield
    finally:
        tracer.terminate()
        tracer.stderr.read()
        tracer.wait()


def unit(place: Path, number: int) -> Iterator[dict[str, Any]]:
    """All k of one kind of call and one fault, in the shape of the unit's round."""
    call, fault = UNITS[number % len(UNITS)]
    shape, root, template = Shape(number // len(UNITS)), place / "run", place / f"round-{number // len(UNITS)}"
    if not template.exists():
        shape.lay(template)
    server = Server(root, call)
    logs = place / "strace"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    with traced(server.pid, call, fault, logs / "log"):
        for at in range(1, LAST):
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(template, root)
            pid, code = server.attempt(at, shape)
            text = (logs / f"log.{pid}").read_text(errors="replace")
            if "INJECTED" not in text and code != -signal.SIGKILL:
                break  # a save makes fewer calls: the fault was never injected
            yield _judged(newest(root, shape.width), code, shape.before) | {
                "call": call,
                "fault": fault,
                "at": at,
                "unit": number,
            }
        else:
            raise SystemExit(f"a save makes {LAST} calls of {call} or more: LAST is too small")
        server.end()


def _judged(found: int, code: int, before: int) -> dict[str, Any]:
    new = before + 1
    if code == SAID:
        ok = found == new
    elif code == -signal.SIGKILL:
        ok = found in (before, new)
    else:
        ok = found == before and code == FAILED
    return {"ok": ok, "new": found == new, "code": code, "found": found}


def fresh() -> dict[str, Any]:
    return {"code": code(), "kills": 0, "faults": 0, "units": 0, "seconds": 0.0, "by": {}, "wrong": [], "read_seconds": []}


def code() -> str:
    """Digest of what is tested and of what tests it."""
    names = ("checkpoint", "publication", "image", "kept", "artifact", "tensors")
    return digest_of(
        [digest_path(path) for path in (*(ROOT / "autoglm_ops" / "training" / f"{name}.py" for name in names), Path(__file__))]
    )


def note(record: dict[str, Any], name: str, one: dict[str, Any]) -> None:
    row = record["by"].setdefault(name, {"injected": 0, "kept before": 0, "kept new": 0, "wrong": 0})
    row["injected"] += 1
    row["kept new" if one["new"] else "kept before"] += 1
    row["wrong"] += not one["ok"]
    record["wrong"] += [one] if not one["ok"] else []


def campaign(record: dict[str, Any], kills: int, faults: int, until: float, keep: Callable[[], None] = lambda: None) -> None:
    """Go on with `record` until so many kills and faults are in it, or the monotonic time `until`; `keep` after each unit."""
    chance = random.Random(6 + record["kills"])
    with tempfile.TemporaryDirectory(prefix="autoglm-chaos-") as folder:
        place = Path(folder)
        while record["kills"] < kills and time.monotonic() < until:
            one = killed(place / "run", chance)
            record["kills"] += 1
            record["read_seconds"].append(round(one["seconds"], 5))
            note(record, MOMENT, one)
        while record["faults"] < faults and time.monotonic() < until:
            for one in unit(place, record["units"]):
                record["faults"] += 1
                note(record, f"{one['fault'].rpartition('=')[2]} at {one['call']}".replace("1 at", "1 byte at"), one)
            record["units"] += 1
            keep()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--faults", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--fresh", action="store_true", help="do not add to earlier slices")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path = ROOT / ".autoglm" / "bench" / "chaos-checkpoint.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() and not asked.fresh else fresh()
    if record.get("code") != code():
        print(f"{path.name} is of other code: its numbers are not added to", file=sys.stderr)
        record = fresh()
    began, before = time.monotonic(), record["seconds"]

    def keep() -> None:
        record["seconds"] = before + time.monotonic() - began
        write_text(path, json.dumps(record, indent=2) + "\n")

    traces = shutil.which("strace") is not None
    campaign(record, asked.kills, asked.faults if traces else 0, began + asked.seconds, keep)
    keep()
    told(record, asked.kills, asked.faults, traces)
    sys.exit(bool(record["wrong"]))


def told(record: dict[str, Any], kills: int, faults: int, traces: bool) -> None:
    console = Console(highlight=False)
    console.print(table(record))
    seconds = sorted(record["read_seconds"]) or [0.0]
    p50, p95 = (1e3 * seconds[round(share * (len(seconds) - 1))] for share in (0.5, 0.95))
    console.print(
        f"{record['kills']} kills and {record['faults']} faults in {record['seconds']:.0f} s; read back in {p50:.1f} ms (p95 {p95:.1f} ms)"
    )
    if not traces:
        console.print("no strace on this machine: no faults were injected")
    elif record["kills"] < kills or record["faults"] < faults:
        console.print(f"of {kills} kills and {faults} faults: the same command goes on")
    for one in record["wrong"][:10]:
        console.print(f"wrong: {one}")


def table(record: dict[str, Any]) -> Table:
    columns = ("injected", "kept before", "kept new", "wrong")
    shown = Table("fault", *columns, box=None)
    rows = {**record["by"], "all": {name: sum(row[name] for row in record["by"].values()) for name in columns}}
    for name, row in rows.items():
        shown.add_row(name, *(str(row[column]) for column in columns))
    return shown


if __name__ == "__main__":
    main()
