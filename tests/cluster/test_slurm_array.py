"""Many jobs as one array, on two nodes of this machine: a coordinator that dies, elements one by one, slots."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster_parts import wait_for
from on_slurm import command, hurry, needs_slurm
from two_nodes import cannot, two_nodes

from autoglm_ops.cluster import slurm_array
from autoglm_ops.cluster.slurm import SlurmLauncher
from autoglm_ops.contracts.cluster import JobSpec
from autoglm_ops.contracts.slurm import SlurmPlace

pytestmark = [needs_slurm, pytest.mark.skipif(bool(cannot()), reason=str(cannot()))]
CODE = """
import os, pathlib, sys, time
number, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
with (folder / f"began-{number}").open("a") as file:
    file.write(os.environ["AUTOGLM_JOB_ATTEMPT"] + " " + os.environ["SLURM_ARRAY_TASK_ID"] + chr(10))
print("I am", number, flush=True)
while not (folder / f"go-{number}").exists():
    time.sleep(0.1)
sys.exit(number)
"""
LAUNCH = """
import logging, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_slurm_array as here
logging.basicConfig(level="INFO", format="%(asctime)s %(message)s")
folder = Path(sys.argv[1])
jobs = [here.jobs(folder)[int(number)] for number in sys.argv[3]]
print([(one.state, one.exit) for one in here.launcher(folder).run_all(jobs, 2)])
"""


def launcher(folder: Path) -> SlurmLauncher:
    return SlurmLauncher(SlurmPlace(logs=str(folder / "logs")), poll=0.2)


def jobs(folder: Path, count: int = 4) -> list[JobSpec]:
    """Each says that it began, waits until it may end, and ends with its number."""
    return [
        JobSpec(
            name="wait", command=(sys.executable, "-c", CODE, str(number), str(folder)), key=f"{number:064x}", attempt=1 + number,
            store=str(folder / "store"), deadline_seconds=120, workdir=str(folder),
        )
        for number in range(count)
    ]  # fmt: skip


def began(folder: Path) -> set[int]:
    return {int(path.name.partition("-")[2]) for path in folder.glob("began-*")}


def coordinator(folder: Path, numbers: str = "0123") -> subprocess.Popen[str]:
    words = [sys.executable, "-c", LAUNCH, str(folder), str(Path(__file__).parent), numbers]
    path = os.pathsep.join(
        [str(Path(__file__).parent), str(Path(__file__).parents[1] / "contracts"), os.environ.get("PYTHONPATH", "")]
    )
    with (folder / f"said-{numbers}").open("w") as said:
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=said, text=True, env={**os.environ, "PYTHONPATH": path})


@pytest.fixture(scope="module", autouse=True)
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A place for each of two jobs; the given node may have one."""
    with two_nodes(tmp_path_factory.mktemp("slurm")) as conf, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(conf))
        yield


@pytest.fixture(autouse=True)
def nothing_is_left(two: None) -> Iterator[None]:
    yield
    assert command("squeue", "--noheader", "--format=%j %T") == "", "a test left a job on the cluster"


def test_a_killed_coordinator_finds_its_array_again_and_each_element_is_a_job(tmp_path: Path) -> None:
    """Two of four have a place. One is cancelled while it waits, one is requeued, one swept away, and the last one ends."""
    cluster, (one, two, three, four) = launcher(tmp_path), jobs(tmp_path)
    first = coordinator(tmp_path)
    wait_for(lambda: began(tmp_path) == {0, 1})
    first.kill()
    first.communicate()
    [number] = set(command("squeue", "--noheader", "--format=%F").split())
    assert [cluster.look(each) for each in (one, two, three, four)] == ["running", "running", "pending", "pending"]
    assert cluster.sweep(lambda key, attempt: attempt != 4, dry=True) == [f"{slurm_array.name_of((one, two, three, four))}_3"]
    assert cluster.cancel(three) and not cluster.cancel(three) and cluster.look(three) == "absent"
    second = coordinator(tmp_path, "013")
    wait_for(lambda: "I am 0" in (tmp_path / "said-013").read_text())
    command("scontrol", "requeue", f"{number}_1")
    wait_for(lambda: cluster.look(two) == "pending")
    (tmp_path / "go-0").touch()
    wait_for(lambda: 3 in began(tmp_path), 60)
    assert cluster.sweep(lambda key, attempt: attempt != 4) == [f"{slurm_array.name_of((one, two, three, four))}_3"]
    wait_for(lambda: hurry(f"{number}_1"))
    wait_for(lambda: (tmp_path / "began-1").read_text().count("\n") == 2 or second.poll() is not None, 60)
    (tmp_path / "go-1").touch()  # not before: what is requeued could end by itself, and its end pass for the new start's
    out, err = second.communicate(timeout=120)[0], (tmp_path / "said-013").read_text()
    assert "[('succeeded', 0), ('failed', 1), ('cancelled', 143)]" in out, err
    assert (tmp_path / "began-1").read_text() == "2 1\n2 1\n", f"the requeued element is the same attempt\n{err}"
    assert f"[{number}_0] I am 0" in err and f"[{number}_1] I am 1" in err and "was requeued" in err
    assert 2 not in began(tmp_path)


def test_a_signal_cancels_the_whole_array(tmp_path: Path) -> None:
    process = coordinator(tmp_path)
    wait_for(lambda: began(tmp_path) == {0, 1})
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)[0], (tmp_path / "said-0123").read_text()
    assert out.strip() == str([("cancelled", 143)] * 4), err


def test_what_one_array_cannot_list_is_two_that_keep_to_the_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the end of the first, however that is. A comment is made short here: of a real one, 21 jobs fill it."""
    monkeypatch.setattr(slurm_array, "COMMENT", 130)
    for number in range(3):
        (tmp_path / f"go-{number}").touch()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(launcher(tmp_path).run_all, jobs(tmp_path, 3), 1)
        wait_for(lambda: began(tmp_path) >= {0, 1})
        assert len(set(command("squeue", "--noheader", "--states=all", "--format=%F %j").splitlines())) >= 2
        ended = running.result(timeout=120)
    assert [(one.state, one.exit) for one in ended] == [("succeeded", 0), ("failed", 1), ("failed", 2)]
    assert [(tmp_path / f"began-{number}").read_text().split()[1] for number in range(3)] == ["0", "1", "0"]
