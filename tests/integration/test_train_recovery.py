"""Two real DeepSpeed ranks that are killed, stopped, cut off in a save, given other ranks or a rate that explodes: what comes out of it.

The runs are small and share one warm group, so that a restart costs a second.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import chaos_checkpoint
from chaos_train import KINDS, Campaign, digests, job_of, tokens, total

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.contracts.training import RecoveryRules, TrainingRecord
from autoglm_ops.errors import Refused
from autoglm_ops.training import supervisor
from autoglm_ops.training.beat import read
from autoglm_ops.training.job import Job
from autoglm_ops.training.kept import newest_first
from autoglm_ops.training.models import build
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.rows import MacroF1, Rows
from autoglm_ops.training.supervisor import Trail
from autoglm_ops.training.warm import WarmGroup

pytestmark = pytest.mark.slow
STEPS = 40
QUICK = RecoveryRules(restarts=4, hang_seconds=4.0, backoff_seconds=0.0, checkpoint_steps=5, checkpoint_seconds=None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recovery")
    (folder / "tokens").mkdir()
    tokens(folder / "tokens")
    return folder


@pytest.fixture(scope="module")
def group(place: Path) -> Iterator[WarmGroup]:
    with WarmGroup(job_of(place / "none", place / "tokens", 1, "fp32", STEPS)) as warm:
        yield warm


@pytest.fixture(scope="module")
def calm(place: Path, group: WarmGroup) -> tuple[str, str]:
    job = job_of(place / "calm", place / "tokens", 1, "fp32", STEPS)
    assert supervisor.train(job, Path(job.out), QUICK, group).restarts == 0
    return digests(job)


def disturbed(job: Job, group: WarmGroup, act: Callable[[dict[int, int]], None], after: int = 1) -> Trail:
    """Run `job`; once a checkpoint of step `after` or a later one is there, `act` on {rank: pid}."""

    def wait() -> None:
        while newest(Path(job.scratch)) < after:
            time.sleep(0.01)
        act({beat.rank: beat.pid for beat in read(Path(job.out))})

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        return supervisor.train(job, Path(job.out), QUICK, group)
    finally:
        thread.join()


@pytest.mark.parametrize(("number", "cause"), [(signal.SIGKILL, "killed"), (signal.SIGSTOP, "hang")])
def test_a_killed_or_stopped_rank_changes_no_byte(
    place: Path, group: WarmGroup, calm: tuple[str, str], number: signal.Signals, cause: str
) -> None:
    job = job_of(place / number.name, place / "tokens", 1, "fp32", STEPS)
    trail = disturbed(job, group, lambda pids: os.kill(pids[1], number))
    assert [event["cause"] for event in trail.events] == [cause]
    assert digests(job) == calm


@pytest.mark.parametrize(("zero", "precision"), KINDS)
def test_a_rank_killed_while_weights_are_averaged_changes_no_byte_and_the_mean_is_what_was_scored(
    place: Path, group: WarmGroup, zero: int, precision: str
) -> None:
    unbroken, killed = (
        job_of(place / f"{name}-{zero}-{precision}", place / "tokens", zero, precision, STEPS) for name in ("whole", "mean")
    )
    supervisor.train(unbroken, Path(unbroken.out), QUICK, group)
    trail = disturbed(killed, group, lambda pids: os.kill(pids[1], signal.SIGKILL), after=25)
    assert trail.restarts == 1 and trail.events[0]["kept"] >= 25
    assert digests(killed) == digests(unbroken)
    told = TrainingRecord.read(Path(killed.out) / "training.json")
    assert (told.averaged_from, told.best_step) == (21, STEPS)
    assert published(killed) == pytest.approx(told.validation[-1][1], abs=1e-6 if precision == "fp32" else 0.02)


def published(job: Job) -> float:
    """Macro-F1 of the published weights on the validation rows."""
    tokens = Path(job.tokens)
    rows = Rows(
        TokenArrays.open(tokens, "train"), TokenArrays.open(tokens, "validation"), job.model.pad_id, len(job.model.labels)
    )
    engine = PlainEngine(build(job.model, 0), job.recipe)
    engine.put(load_file(Path(job.out) / "weights" / "model.safetensors"))
    return MacroF1(rows).score(engine, 0)


def test_a_torn_checkpoint_is_passed_over_and_changes_no_byte(place: Path, group: WarmGroup, calm: tuple[str, str]) -> None:
    job = job_of(place / "torn", place / "tokens", 1, "fp32", STEPS)

    def tear(pids: dict[int, int]) -> None:
        os.kill(pids[0], signal.SIGKILL)
        time.sleep(0.1)
        part = newest_first(Path(job.scratch))[0] / "rank-00001.safetensors"
        part.write_bytes(part.read_bytes()[:-4])

    trail = disturbed(job, group, tear)
    assert trail.restarts == 1
    assert digests(job) == calm


def test_a_checkpoint_one_rank_has_not_saved_is_none(place: Path, calm: tuple[str, str]) -> None:
    """Rank 1's part comes three seconds late and rank 0 is killed meanwhile: the run continues from the one before (threats F14)."""
    job = job_of(place / "late", place / "tokens", 1, "fp32", STEPS)
    job = job.model_copy(update={"rules": QUICK.model_copy(update={"checkpoint_steps": 10})})
    late = place / "late_body.py"
    late.write_text(
        "import os, signal, time\n"
        "from autoglm_ops.training import publication, rank\n"
        "from autoglm_ops.training.rank import warm\n"
        "real, own = publication.write_part, publication.publish\n"
        "def slow(site, part):\n"
        "    if site.rank == 1 and part.step == 20 and JOB.attempt == 1: time.sleep(3)\n"
        "    real(site, part)\n"
        "def killed(site, step, **named):\n"
        "    if step == 20 and JOB.attempt == 1:\n"
        "        assert site.staged(20).is_dir() and not (site.staged(20) / 'note-00001.json').exists()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return own(site, step, **named)\n"
        "def work(job, number, meeting, born):\n"
        "    global JOB\n"
        "    JOB, publication.write_part, publication.publish = job, slow, killed\n"
        "    rank.work(job, number, meeting, born)\n"
    )
    os.environ["PYTHONPATH"] = f"{place}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with WarmGroup(job, "late_body:work") as own:
        trail = supervisor.train(job, Path(job.out), QUICK, own)
    (event,) = trail.events
    assert (event["cause"], event["kept"]) == ("killed", 10)
    assert digests(job) == calm


def test_other_ranks_and_another_stage_continue_within_rounding_and_say_so(
    place: Path, group: WarmGroup, calm: tuple[str, str]
) -> None:
    whole = load_file(place / "calm" / "group" / "weights" / "model.safetensors")
    for name, update in (
        ("fewer", {"ranks": 1, "micro_batch": 8, "zero_stage": 0, "buckets": {}}),
        ("stage", {"zero_stage": 3}),
    ):
        job = job_of(place / name, place / "tokens", 1, "fp32", STEPS, **update)
        shutil.copytree(place / "calm" / "checkpoints", job.scratch)
        supervisor.train(job, Path(job.out), QUICK, group)
        told = TrainingRecord.read(Path(job.out) / "training.json")
        assert [(change.kind, change.step) for change in told.changes] == [("layout", newest(place / "calm" / "checkpoints"))]
        assert "saved on ZeRO 1, float32 on 2 ranks; equal within rounding" in told.changes[0].why
        now = load_file(Path(job.out) / "weights" / "model.safetensors")
        furthest = max(float((now[key] - whole[key]).abs().max()) for key in whole)
        assert furthest < 2e-2  # a few steps of a rate of 3e-3, with other rows dropped per rank


def newest(root: Path) -> int:
    """The step of the newest checkpoint in `root`, or 0."""
    return max((int(folder.name.rpartition("-")[2]) for folder in newest_first(root)), default=0)


def test_a_rate_of_a_billion_is_halved_and_then_refused(place: Path, group: WarmGroup) -> None:
    job = job_of(place / "rate", place / "tokens", 1, "fp32", STEPS)
    job = job.model_copy(update={"recipe": job.recipe.model_copy(update={"learning_rate": 1e9})})  # clipped at 1, as shipped
    with pytest.raises(Refused, match=r"diverged: the .* gave up after 3 restarts: diverged on rank") as caught:
        supervisor.train(job, Path(job.out), QUICK.model_copy(update={"restarts": 3}), group)
    assert len(caught.value.reasons) == 4
    assert not (Path(job.out) / "weights").exists()


def test_the_liveness_probe_hears_a_run(place: Path, calm: tuple[str, str]) -> None:
    command = [sys.executable, "-m", "autoglm_ops.training.alive", str(place / "calm"), "--seconds", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all 2 ranks are done\n")


def test_a_small_campaign(tmp_path: Path) -> None:
    """Three injections at random moments; `make chaos-train` makes two hundred."""
    campaign = Campaign(tmp_path, 24, 3)
    campaign.run(3, 300.0)
    found = total(campaign.tallies)
    assert campaign.kills == 3 and set(campaign.tallies) == {f"ZeRO {zero} {precision}" for zero, precision in KINDS}
    assert found.lost + found.differed == 0 and sum(found.moments.values()) >= 3


@pytest.mark.skipif(shutil.which("strace") is None, reason="faults are injected by strace")
def test_a_small_campaign_on_the_checkpoint_layer() -> None:
    """A few kills, and two kinds of faults at each call that opens a file; `make chaos-checkpoint` makes 2,000 and 10,000."""
    record = chaos_checkpoint.fresh()
    chaos_checkpoint.campaign(record, 10, 20, time.monotonic() + 120.0)
    assert record["kills"] == 10 and record["faults"] >= 20
    assert record["wrong"] == []
