"""Trials of a round trained by processes of their own, and the stage alone: identical records. A worker that dies is found and repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from train_workspace import workspace

from autoglm_ops.cluster.local import LocalLauncher
from autoglm_ops.contracts.cluster import JOB_STORE, JobSpec, JobStatus, Work
from autoglm_ops.contracts.record import Completion, digest_tree
from autoglm_ops.contracts.training import TuningReport
from autoglm_ops.errors import UsageError
from autoglm_ops.settings import load
from autoglm_ops.stages import runner, runs, trials, trials_away
from autoglm_ops.stages.desk import Desk
from autoglm_ops.stages.runner import run_stage
from autoglm_ops.tuning.rounds import Look

ROOT = Path(__file__).parents[2]
TUNE = {"trials": 4, "steps": 12, "parallel": 2, "looks": 2}


def prepared(root: Path) -> Path:
    workspace(root, tune=TUNE)
    run_stage("plan", root)
    return root


def command(root: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "autoglm_ops", *words]


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "AUTOGLM_CHECKOUT": str(root), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def printed(root: Path, *words: str) -> object:
    done = subprocess.run(command(root, *words), env=environment(root), capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_mapped_trials_and_the_stage_alone_leave_identical_records(tmp_path: Path) -> None:
    """Each look in a process of its own, through the command line, one of them killed on its way; against one warm process."""
    apart, alone = prepared(tmp_path / "apart"), prepared(tmp_path / "alone")
    first = printed(apart, "trial", "ask")
    assert [look["number"] for look in first] == [0, 1]
    with subprocess.Popen(command(apart, "trial", "run", f"--look={json.dumps(first[0])}"), env=environment(apart)) as worker:
        time.sleep(0.5)
        worker.send_signal(signal.SIGKILL)  # before or after its first beat
    assert trials.ask(apart) == tuple(Look.model_validate(look) for look in first)  # found without an answer, asked for again
    told = printed(apart, "trial", "run", f"--look={json.dumps(first[1])}")
    assert 0 <= told["score"] <= 1 and told["look"] == first[1]
    rounds = 0
    while looks := trials.ask(apart):
        rounds += 1
        for look in reversed(looks):
            assert trials.train(apart, look).score is not None
    assert rounds >= 3 and trials.over(apart)
    for root in (apart, alone):
        run_stage("tune", root)
    assert digest_tree(apart / "out" / "tune") == digest_tree(alone / "out" / "tune")
    assert set(runner.require("tune", apart).measured["trials"]) == {"0", "1", "2", "3"}


@pytest.mark.slow
def test_through_the_store_as_on_a_cluster_a_look_is_the_same(tmp_path: Path) -> None:
    here, away = prepared(tmp_path / "here"), prepared(tmp_path / "away")
    (away / "autoglm_ops").symlink_to(ROOT / "autoglm_ops")
    params = away / "params.yaml"
    params.write_text(params.read_text() + "cluster: {rehearse: true}\n")
    first = trials.ask(here)
    assert trials.ask(away) == first
    one = trials.train(here, first[1])
    there = trials.launch(away, first[1])
    assert (one.look, one.score) == (there.look, there.score)
    scratch = runner.context_of("tune", away).scratch
    assert list((scratch / "trials" / "trial-1").rglob("*.safetensors"))  # what the next round continues from came back
    assert trials.launch(away, first[1]) == there


class Unlucky(LocalLauncher):
    """This machine, where the first job to be started is lost."""

    lost = 0

    def run(self, job: JobSpec) -> JobStatus:
        if not self.lost:
            Unlucky.lost += 1
            return JobStatus(state="lost", exit=75, seconds=0, reason="lost: its node burned down")
        return super().run(job)


def test_a_job_lays_down_what_it_was_asked_for_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job says came out is its own word: "." had taken the place of the whole scratch folder."""
    root = prepared(tmp_path / "w")
    (root / "autoglm_ops").symlink_to(ROOT / "autoglm_ops")
    (root / "params.yaml").write_text((root / "params.yaml").read_text() + "cluster: {rehearse: true}\n")
    look, context = trials.ask(root)[0], runner.context_of("tune", root)
    before = sorted(context.scratch.rglob("*"))

    def answered(works: tuple[Work, ...], *_: object) -> list[JobStatus]:
        outputs = dict.fromkeys((".", "home", f"home/scratch/{context.scratch.name}"), works[0].inputs["."])
        return [JobStatus(state="succeeded", exit=0, seconds=1, outputs=outputs)]

    monkeypatch.setattr(trials_away, "run_works", answered)
    trials_away._run(context, (look,))
    assert sorted(context.scratch.rglob("*")) == before != []


@pytest.mark.slow
def test_a_round_that_is_sent_away_leaves_the_bytes_of_one_trained_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Through the store as on a cluster, by `runs exec` as by `dvc repro`: the study stays, its trials leave, one of them twice."""
    monkeypatch.setattr("autoglm_ops.stages.launchers.local", lambda settings: (Unlucky(), sys.executable))
    tune = {"trials": 2, "steps": 8, "parallel": 2, "strategy": "random"}
    here, away = workspace(tmp_path / "here", tune=tune), workspace(tmp_path / "away", tune=tune)
    (away / "autoglm_ops").symlink_to(ROOT / "autoglm_ops")
    params = away / "params.yaml"
    params.write_text(params.read_text() + "cluster: {rehearse: true}\n")
    for root in (here, away):
        run_stage("plan", root)
    run_stage("tune", here)
    capfd.readouterr()
    done = run_stage("tune", away)
    said = capfd.readouterr().err
    assert said.count("attempt 1: succeeded") == said.count("attempt 2: succeeded") == 1, said
    assert digest_tree(away / "out" / "tune") == digest_tree(here / "out" / "tune")
    assert done.measured["trials"].keys() == {"0", "1"}


def test_a_job_trains_its_own_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(prepared(tmp_path / "w") / "params.yaml", overrides=("cluster.rehearse=true",))
    assert trials_away.leave(settings)
    monkeypatch.setenv(JOB_STORE, "s3://b/p")
    assert not trials_away.leave(settings)


@pytest.mark.slow
def test_a_refused_trial_of_a_round_stands_in_the_studys_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its number and its reason, for no stage comes after it that could say so; and no longer than it is refused."""
    root = prepared(tmp_path / "w")
    (root / "autoglm_ops").symlink_to(ROOT / "autoglm_ops")
    params = root / "params.yaml"
    params.write_text(params.read_text() + "cluster: {rehearse: true, secrets: [TEAM_KEY]}\n")
    first = trials.ask(root)

    def refused(look: Look) -> Completion:
        with pytest.raises(runs.StageFailedError, match=f"trial {look.number} was not trained: .*TEAM_KEY"):
            trials.launch(root, look)
        return Completion.read(runner.completion_path(root, "tune"))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(refused, first))
    record = refused(first[0])
    assert (record.stage, record.exit, record.attempt) == ("tune", 2, 1)
    assert [reason.split(":")[0] for reason in record.reasons] == [f"trial {number} was not trained" for number in (0, 1)]
    monkeypatch.setenv("TEAM_KEY", "k")
    assert trials.launch(root, first[0]).score is not None
    monkeypatch.delenv("TEAM_KEY")
    assert [reason.split(":")[0] for reason in refused(first[1]).reasons] == ["trial 1 was not trained"]


def test_what_nobody_survives_is_given_up_and_the_study_goes_on(tmp_path: Path) -> None:
    root = prepared(tmp_path / "w")
    first = trials.ask(root)
    desk = Desk(runner.context_of("tune", root).scratch / "looks")
    for _ in range(4):  # recovery.restarts is 3
        assert first[1] in trials.ask(root)
        with desk.working(first[1]):
            pass
    trials.train(root, first[0])
    second = trials.ask(root)
    assert {look.number for look in second} == {0, 2}


def test_a_look_that_nobody_asked_for_is_a_wrong_call() -> None:
    from autoglm_ops.cli.trial import parsed

    with pytest.raises(UsageError, match="--look is none that"):
        parsed('{"number": 1}')


def test_sizes_are_searched_within_memory_and_the_knee_is_chosen(tmp_path: Path) -> None:
    space = {
        "model.hidden_size": {"adaptive": [16, 64]},
        "model.heads": {"choice": [2, 4]},
        "train.learning_rate": {"loguniform": [1e-3, 2e-2]},
    }
    root = workspace(
        tmp_path / "w",
        tune={"strategy": "random", "trials": 4, "steps": 6, "space": space, "objectives": ["quality", "latency", "size"]},
    )
    run_stage("plan", root)
    done = run_stage("tune", root)
    report = TuningReport.read(root / "out" / "tune" / "report.json")
    assert report.space["model.hidden_size"] == {"int": [16, 64], "step": 16}
    assert "adaptive [16, 64] is 16 to 64 by 16: all of it fits" in report.reasons[0]
    knee = next(trial for trial in report.trials if trial.params == report.best)
    assert knee.number in report.front and knee.costs["size"] > 0 and "is the knee of" in report.reasons[-1]
    assert all(measured["latency_ms"] > 0 for measured in done.measured["trials"].values())
