"""What a Slurm job costs over a process here, for the same work: submission, start, the wrapper, inputs and outputs through the store.

Two ways, in turn, a new key each time: the work through the store in a fresh folder here (`cluster.rehearse`), and in a Slurm job.
Needs SLURM_CONF and a node that sees this machine's temporary folder.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from autoglm_ops.cluster.dispatch import run_work
from autoglm_ops.cluster.local import LocalLauncher
from autoglm_ops.cluster.slurm import SlurmLauncher
from autoglm_ops.contracts.cluster import JobSpec, Launcher, Work
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.store import open_store

REPEATS = int(os.environ.get("REPEATS", "5"))
CODE = "import pathlib; p = pathlib.Path('out/made'); p.mkdir(parents=True); p.joinpath('x').write_bytes(pathlib.Path('in/x').read_bytes())"
MB = 16


def main() -> int:
    if not os.environ.get("SLURM_CONF"):
        print("SLURM_CONF is not set: the cost of a Slurm job is not measured")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        launchers: dict[str, Launcher] = {
            "here": LocalLauncher(),
            "slurm": SlurmLauncher(SlurmPlace(logs=str(folder / "logs"))),
        }
        seconds: dict[str, list[float]] = {way: [] for way in launchers}
        for turn in range(REPEATS):
            for way, launcher in launchers.items():
                seconds[way].append(once(launcher, folder, f"{way}-{turn}"))
    for way, found in seconds.items():
        print(f"{way:6} {statistics.median(found):6.2f} s (median of {REPEATS}; {min(found):.2f} to {max(found):.2f})")
    more = [far - near for near, far in zip(seconds["here"], seconds["slurm"], strict=True)]
    print(f"a Slurm job costs {statistics.median(more):.2f} s more ({min(more):.2f} to {max(more):.2f}), {MB} MB in and out")
    return 0


def once(launcher: Launcher, folder: Path, turn: str) -> float:
    store = open_store(str(folder / "store"), folder)
    given = folder / turn
    given.mkdir()
    (given / "x").write_bytes(os.urandom(MB << 20))
    begun = time.monotonic()
    work = Work(name="bench", command=("python", "-c", CODE), inputs={"in": store.put(given)}, outputs=("out/made",))
    status = run_work(work, JobSpec(name="bench", command=(), store=str(folder / "store")), launcher, store, sys.executable)
    assert status.state == "succeeded", status
    return time.monotonic() - begun


if __name__ == "__main__":
    sys.exit(main())
