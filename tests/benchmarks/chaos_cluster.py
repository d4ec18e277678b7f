"""Runs on a real cluster whose pods are deleted, tasks cleared and schedulers killed at random, each to its end (threats F21, F22).

    KUBECONFIG=… python tests/benchmarks/chaos_cluster.py --faults 100 --seconds 540     # or: make chaos-cluster FAULTS=100 SLICE=540

A round is one run: a job that trains a tiny model in steps and keeps its checkpoints, sent to a pod through a real S3 server, then
registered and promoted. While it goes on its pod is deleted, its task is killed (as a scheduler or worker dies), cleared (SIGTERM, and
again), or started a second time beside itself (a backfill, a retry); and when it is done it is cleared once more. The weights must be
those that this machine made undisturbed, byte for byte; there is one registered version and one promotion; at the end no pod and no
process is left. `--seconds` ends a slice in order; its numbers are added to those of earlier slices in
.autoglm/bench/chaos-cluster.json unless `--fresh`. Ends with 1 when anything of that does not hold.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("contracts", "cluster", "cluster/mounting", "benchmarks")]

import mounting  # noqa: E402
from cluster_parts import BARE, IMAGE, SECRETS, give_keys, make_namespace, reachable_s3, wait_for  # noqa: E402
from race_runs import Effects  # noqa: E402

from autoglm_ops.cluster import exchange, kubernetes  # noqa: E402
from autoglm_ops.cluster.dispatch import run_work  # noqa: E402
from autoglm_ops.cluster.local import LocalLauncher  # noqa: E402
from autoglm_ops.contracts.cluster import JobSpec, Launcher, Work  # noqa: E402
from autoglm_ops.contracts.placement import KubernetesPlace  # noqa: E402
from autoglm_ops.contracts.record import digest_of  # noqa: E402
from autoglm_ops.store import open_store  # noqa: E402

FAULTS = ("pod deleted", "scheduler killed", "task cleared", "started twice")
SEEDS = 4
MOST_TASKS = 15
"""Tasks of one run, its retries included; with more it counts as lost."""
ROUND_SECONDS = 300.0
TRAIN = """
import os, pathlib, random, time
kept = pathlib.Path('scratch'); kept.mkdir(exist_ok=True)
chance = random.Random(int(os.environ['SEED'])); data = [[chance.gauss(0, 1) for _ in range(9)] for _ in range(64)]
last = max(kept.glob('step-*'), default=None)
begun, w = (int(last.name[5:]), [float(x) for x in (last / 'w').read_text().split()]) if last else (0, [0.0] * 8)
for step in range(begun + 1, 31):
    for row in data:
        wrong = sum(a * b for a, b in zip(w, row)) - row[8]
        w = [a - 0.01 * wrong * b for a, b in zip(w, row)]
    if step % 5 == 0:
        new = kept / f'.{step}'; new.mkdir(); (new / 'w').write_text(' '.join(map(repr, w))); os.replace(new, kept / f'step-{step:03d}')
    time.sleep(float(os.environ['PAUSE']))
out = pathlib.Path('out/train'); out.mkdir(parents=True); (out / 'w').write_text(' '.join(map(repr, w)))
"""


@dataclass
class Tally:
    """What a campaign did and found."""

    rounds: int = 0
    tasks: int = 0
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    lost: int = 0
    differed: int = 0
    doubled: int = 0
    repeated: int = 0
    """Cleared when they were done, and done again."""
    orphans: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def injected(self) -> int:
        return sum(self.faults.values())

    @property
    def wrong(self) -> int:
        return self.lost + self.differed + self.doubled + self.repeated + self.orphans

    def plus(self, other: Tally) -> Tally:
        faults = {name: self.faults[name] + other.faults[name] for name in FAULTS}
        numbers = {key: getattr(self, key) + value for key, value in vars(other).items() if key != "faults"}
        return Tally(**numbers, faults=faults)


@dataclass(frozen=True)
class Field:
    """Where a campaign takes place."""

    core: Any
    namespace: str
    store: str
    plain: dict[str, str]
    home: Path
    tracked: tuple[str, str]


def work(ident: str, seed: int, pause: float) -> Work:
    """The same for every task of a round; of another key in each round."""
    environment = {"SEED": str(seed), "PAUSE": str(pause), "ROUND": ident}
    return Work(
        name="chaos", command=("python", "-c", TRAIN), outputs=("out/train",), keeps=("scratch/step-*",), environment=environment,
        deadline_seconds=240,
    )  # fmt: skip


def undisturbed(seed: int) -> str:
    """The digest of what this machine makes."""
    with tempfile.TemporaryDirectory(prefix="autoglm-calm-") as folder:
        job = JobSpec(name="chaos", command=(), store=folder, workdir=folder, deadline_seconds=240)
        status = run_work(work("calm", seed, 0), job, LocalLauncher(), open_store(folder, Path(folder)), sys.executable)
    return status.outputs["out/train"]


def task(place: Field, made: Work, run: str) -> None:
    """What a DAG's tasks do for a run: the job, then the effects. Ends this process with the job's exit code."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()
    sink = os.open(place.home / f"{run}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(sink, 2)
    where = KubernetesPlace(namespace=place.namespace, images=(IMAGE or BARE,), secret="team-keys")
    launcher: Launcher = kubernetes.KubernetesLauncher(where, 120.0)
    job = JobSpec(
        name="chaos", command=(), image=IMAGE or BARE, environment=place.plain, secrets=SECRETS[:2], store=place.store,
        deadline_seconds=240,
    )  # fmt: skip
    status = run_work(made, job, launcher, open_store(place.store, place.home), "python")
    if status.state == "succeeded":
        Effects(place.home)(run, status.outputs["out/train"], place.tracked)
    os._exit(status.exit)


class Round:
    """One run, disturbed: its tasks are this process's children, and end is when one of them ended well and none is left."""

    def __init__(self, place: Field, ident: str, chance: random.Random, tally: Tally, budget: int) -> None:
        self._place, self._chance, self._tally = place, chance, tally
        self._left = chance.randint(1, min(3, budget))
        self._seed = chance.randrange(SEEDS)
        self._work, self.run = work(ident, self._seed, 0.1), digest_of(ident)[:16]
        self._tasks: list[ForkProcess] = []
        self._done = False
        self._until = time.monotonic() + ROUND_SECONDS

    def play(self, meant: Callable[[int], str]) -> None:
        begun, before = time.monotonic(), self._tally.tasks
        self._start()
        while self._tasks and time.monotonic() < self._until and self._tally.tasks - before < MOST_TASKS:
            self._watch(self._chance.uniform(0.3, 4.0))
            if self._left and self._tasks:
                self._disturb()
        for one in self._tasks:
            one.kill()
            one.join()
        self._judge(meant(self._seed))
        self._tally.seconds.append(round(time.monotonic() - begun, 2))
        self._tally.rounds += 1

    def _start(self) -> None:
        one = multiprocessing.get_context("fork").Process(target=task, args=(self._place, self._work, self.run))
        one.start()
        self._tasks.append(one)
        self._tally.tasks += 1

    def _watch(self, seconds: float) -> None:
        """Until the next fault. A task that failed is tried again, as Airflow does; one that ended well ends the run."""
        end = time.monotonic() + seconds
        while self._tasks and time.monotonic() < end:
            for one in [one for one in self._tasks if not one.is_alive()]:
                self._tasks.remove(one)
                self._done |= one.exitcode == 0
            if not self._tasks and not self._done:
                self._start()
            time.sleep(0.02)

    def _disturb(self) -> None:
        fault = self._chance.choice(FAULTS)
        if fault == "pod deleted" and not self._delete_a_pod():
            return
        if fault in ("scheduler killed", "task cleared"):
            one = self._chance.choice(self._tasks)
            os.kill(one.pid or 0, signal.SIGKILL if fault == "scheduler killed" else signal.SIGTERM)
            one.join()
            self._tasks.remove(one)
            self._start()
        if fault == "started twice":
            self._start()
        self._tally.faults[fault] += 1
        self._left -= 1

    def _delete_a_pod(self) -> bool:
        from kubernetes.client.exceptions import ApiException

        there = [pod for pod in pods_of(self._place) if not pod.metadata.deletion_timestamp]
        if not there:
            return False
        try:
            self._place.core.delete_namespaced_pod(
                self._chance.choice(there).metadata.name, self._place.namespace, grace_period_seconds=0
            )
        except ApiException:
            return False
        return True

    def _judge(self, meant: str) -> None:
        store = open_store(self._place.store, self._place.home)
        key = exchange.describe(store, self._work)
        standing, attempt = exchange.finished(store, key), exchange.newest(store, key)
        if not self._done or standing is None:
            self._tally.lost += 1
            print(f"lost: {self._place.home / self.run}.log", file=sys.stderr)
            return
        self._tally.differed += standing.outputs != {"out/train": meant}
        self._start()
        self._tasks.pop().join()
        self._tally.repeated += exchange.finished(store, key) != standing or exchange.newest(store, key) != attempt
        self._tally.doubled += _count(self._place.home, self.run) != (1, 1)


def _count(home: Path, run: str) -> tuple[int, int]:
    """In a process of its own: this one forks, and may hold no open database."""
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    one = context.Process(target=lambda: told.put(Effects(home).count(run)))
    one.start()
    found: tuple[int, int] = told.get(timeout=120)
    one.join()
    return found


def pods_of(place: Field) -> list[Any]:
    return list(place.core.list_namespaced_pod(place.namespace).items)


def left_over(place: Field, seconds: float = 60) -> int:
    """Pods that are there when what is ending has had its time."""
    end = time.monotonic() + seconds
    while (there := pods_of(place)) and time.monotonic() < end:
        time.sleep(0.5)
    return len(there)


@contextmanager
def field_of(folder: Path) -> Iterator[Field]:
    """A namespace, an S3 server and a registry of the campaign's own."""
    from kubernetes import client, config

    config.load_kube_config()
    core = client.CoreV1Api()
    if not IMAGE:
        kubernetes.pods = mounting.pods
    namespace = make_namespace(core)
    for name in ("s3", "home"):
        (folder / name).mkdir()
    tracked = Effects.prepare(folder / "home")
    try:
        with reachable_s3(core, namespace, folder / "s3") as environment:
            os.environ.update(environment)
            give_keys(core, namespace, {**environment, "BENCH_SECRET": "unused"})
            wait_for(lambda: not core.list_namespaced_pod(namespace).items)
            plain = {name: value for name, value in environment.items() if name not in SECRETS}
            yield Field(core, namespace, "s3://models/chaos", plain, folder / "home", tracked)
    finally:
        core.delete_namespace(namespace)


def campaign(faults: int, seconds: float, seed: int, told: Callable[[Tally], None] = lambda _: None) -> Tally:
    """Round after round until `faults` were injected or `seconds` are over; `told` hears the sums after each."""
    chance, tally, calm = random.Random(seed), Tally(), dict[int, str]()

    def meant(number: int) -> str:
        return calm.setdefault(number, calm.get(number) or undisturbed(number))

    with tempfile.TemporaryDirectory(prefix="autoglm-chaos-") as folder, field_of(Path(folder)) as place:
        until = time.monotonic() + seconds
        while tally.injected < faults and time.monotonic() < until:
            Round(place, f"{seed}-{tally.rounds}", chance, tally, faults - tally.injected).play(meant)
            told(tally)
        tally.orphans = left_over(place)
    return tally


def table(tally: Tally) -> Table:
    shown = Table("what", "how often", box=None)
    for name, count in {"runs": tally.rounds, "tasks": tally.tasks, **tally.faults}.items():
        shown.add_row(name, str(count))
    for name in ("lost", "differed", "doubled", "repeated", "orphans"):
        shown.add_row(name, str(getattr(tally, name)))
    ordered = sorted(tally.seconds) or [0.0]
    shown.add_row("seconds a run, median and most", f"{ordered[len(ordered) // 2]:.1f}, {ordered[-1]:.1f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--fresh", action="store_true", help="do not add to earlier slices")
    asked = parser.parse_args()
    if not os.environ.get("KUBECONFIG"):
        sys.exit("KUBECONFIG is not set: no Kubernetes to disturb")
    logging.disable(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the namespace and the servers go with us
    path = ROOT / ".autoglm" / "bench" / "chaos-cluster.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = Tally() if asked.fresh or not path.exists() else Tally(**json.loads(path.read_text(encoding="utf-8")))

    def keep(found: Tally) -> None:
        path.write_text(json.dumps(vars(before.plus(found)), indent=2) + "\n", encoding="utf-8")

    found = campaign(asked.faults - before.injected, asked.seconds, 1000 + before.injected, keep)
    keep(found)
    done = before.plus(found)
    Console(highlight=False).print(table(done))
    sys.exit(bool(done.wrong))


if __name__ == "__main__":
    main()
