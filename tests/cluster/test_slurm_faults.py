"""A node that fails and a controller that is restarted, on two real nodes of this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster_parts import wait_for
from launcher_contract import JOB, Bench, work
from on_slurm import command, needs_slurm
from two_nodes import cannot, start_controller, stop, two_nodes

from autoglm_ops.cluster.slurm import SlurmLauncher
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.store import open_store

pytestmark = [
    needs_slurm,
    pytest.mark.skipif(bool(cannot()), reason=str(cannot())),
]
CODE = (
    "import os, pathlib, sys, time\n"
    "step = pathlib.Path('scratch/step-1'); again = step.exists()\n"
    "pathlib.Path(sys.argv[1]).open('a').write(os.environ['SLURMD_NODENAME'] + ' ' + str(again) + chr(10))\n"
    "if not again:\n"
    "    pathlib.Path('scratch/.new').mkdir(parents=True); pathlib.Path('scratch/.new/w').write_text('7'); os.replace('scratch/.new', step)\n"
    "time.sleep(4 if again else float(sys.argv[2]))\n"
    "p = pathlib.Path('out/made'); p.mkdir(parents=True); p.joinpath('w').write_text((step / 'w').read_text())"
)


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "slurm").mkdir()
    with two_nodes(tmp_path / "slurm") as path:
        monkeypatch.setenv("SLURM_CONF", str(path))
        yield path


@pytest.fixture
def bench(conf: Path, tmp_path: Path) -> Bench:
    uri = str(tmp_path / "store")
    return Bench(
        SlurmLauncher(SlurmPlace(logs=str(tmp_path / "logs")), poll=0.2),
        open_store(uri, tmp_path),
        uri,
        sys.executable,
        tmp_path,
        JOB,
    )


def test_a_job_whose_node_fails_goes_on_on_another(bench: Bench, tmp_path: Path) -> None:
    said = tmp_path / "said"
    wanted = work(CODE, keeps=("scratch/step-*",)).model_copy(update={"command": ("python", "-c", CODE, str(said), "100")})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bench.run, wanted)
        wait_for(lambda: any((tmp_path / "store" / "notes").glob("kept/*")))
        node = said.read_text().split()[0]
        number = command("squeue", "--noheader", "--format=%A")
        command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        wait_for(lambda: "JobState=PENDING" in command("scontrol", "show", "job", number))
        command("scontrol", "update", f"JobId={number}", "StartTime=now")
        status = running.result(timeout=120)
    assert (status.state, status.exit) == ("succeeded", 0), status
    starts = [line.split() for line in said.read_text().splitlines()]
    assert starts == [[node, "False"], [{"n1": "n2", "n2": "n1"}[node], "True"]]


def test_nodes_that_are_drained_let_jobs_end_and_start_none_until_they_are_resumed(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Slurm's word for that is no verdict: it is said of the one that waits, which starts when a node is back."""
    caplog.set_level("INFO")
    said, after = tmp_path / "said", tmp_path / "after"
    first = work(CODE).model_copy(update={"command": ("python", "-c", CODE, str(said), "4")})
    second = first.model_copy(update={"command": ("python", "-c", CODE, str(after), "0")})
    with ThreadPoolExecutor(2) as pool:
        running = pool.submit(bench.run, first)
        wait_for(said.exists)
        command("scontrol", "update", "NodeName=n1,n2", "State=DRAIN", "Reason=service")
        waiting = pool.submit(bench.run, second)
        assert running.result(timeout=120).state == "succeeded", "what runs on a node that is drained runs to its end"
        wait_for(lambda: "is pending: Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved" in caplog.text)
        assert not waiting.done() and not after.exists()
        command("scontrol", "update", "NodeName=n1,n2", "State=RESUME")
        assert waiting.result(timeout=120).state == "succeeded"
    assert len(said.read_text().splitlines()) == len(after.read_text().splitlines()) == 1


def test_a_controller_that_is_restarted_ends_nothing(bench: Bench, conf: Path, tmp_path: Path) -> None:
    said = tmp_path / "said"
    wanted = work(CODE).model_copy(update={"command": ("python", "-c", CODE, str(said), "8")})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bench.run, wanted)
        wait_for(said.exists)
        stop(conf.parent / "slurmctld.pid")
        time.sleep(4)
        start_controller(conf)
        status = running.result(timeout=120)
    assert (status.state, status.exit) == ("succeeded", 0), status
    assert len(said.read_text().splitlines()) == 1
