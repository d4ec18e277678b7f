"""The real stage `train` through Slurm: the bytes of a local run, also when the job is requeued half-way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from away_workspace import prepared
from cluster_parts import wait_for
from on_slurm import command, hurry, needs_slurm
from two_nodes import cannot, two_nodes

from autoglm_ops.contracts.record import Completion, digest_tree
from autoglm_ops.errors import Refused
from autoglm_ops.stages.runs import launch

pytestmark = needs_slurm


def ready(root: Path, backend: str, **more: object) -> Path:
    """A workspace whose next stage is `train`; long enough to be interrupted."""
    place = {"logs": str(root / "logs")}
    return prepared(root, 16, backend=backend, stages=["train"], deadline_seconds=280, slurm=place, **more)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a local run leaves: name -> sha256."""
    root = ready(tmp_path_factory.mktemp("here") / "w", "local")
    launch(root, "train")
    return digest_tree(root / "out" / "train")


@pytest.mark.slow  # the two below show the same and more
def test_the_bytes_are_those_of_a_local_run(here: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = ready(tmp_path / "w", "slurm", resources={"gpus": 1})
    completion = launch(root, "train")
    assert digest_tree(root / "out" / "train") == here
    assert (completion.exit, completion.stage) == (0, "train")
    assert "attempt 1: succeeded" in capfd.readouterr().err, "the job's log is in the log of whoever launched it"


def test_a_requeued_job_continues_and_ends_with_the_same_bytes(here: dict[str, str], tmp_path: Path) -> None:
    root = ready(tmp_path / "w", "slurm", resources={"gpus": 1})
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(launch, root, "train")
        notes = root / ".autoglm" / "store" / "notes"
        wait_for(lambda: running.done() or any(notes.glob("kept/*")))
        number = command("squeue", "--noheader", "--format=%A")
        assert number and not running.done(), "it ended before it could be requeued"
        command("scontrol", "requeue", number)
        wait_for(lambda: running.done() or hurry(number))
        completion: Completion = running.result(timeout=280)
    assert digest_tree(root / "out" / "train") == here
    assert completion.measured["resumed_at_step"] > 0


def test_gpus_that_there_are_not_stand_in_the_record(tmp_path: Path) -> None:
    root = ready(tmp_path / "w", "slurm", resources={"gpus": 9})
    with pytest.raises(Refused, match="Requested node configuration is not available") as raised:
        launch(root, "train")
    record = Completion.read(root / "completed" / "train.json")
    assert (record.exit, record.reasons) == (raised.value.exit_code, (str(raised.value),))


@pytest.mark.skipif(bool(cannot()), reason=str(cannot()))
def test_two_nodes_of_one_rank_each_give_the_same_bytes(
    here: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """srun starts the wrapper on each node; they meet at rank 0's address, which the store holds."""
    (tmp_path / "slurm").mkdir()
    with two_nodes(tmp_path / "slurm") as conf:
        monkeypatch.setenv("SLURM_CONF", str(conf))
        root = ready(tmp_path / "w", "slurm", resources={"nodes": 2}, environment={"GLOO_SOCKET_IFNAME": "lo"})
        launch(root, "train")
    assert digest_tree(root / "out" / "train") == here
    heard = capfd.readouterr().err
    assert "node 1 of 2: the model is with node 0" in heard and "attempt 1: succeeded" in heard, "the job's log is the caller's"
