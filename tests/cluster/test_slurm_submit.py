"""`autoglm submit` on the Slurm that $SLURM_CONF leads to."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cluster_parts import ROOT
from on_slurm import command, needs_slurm
from submit_calls import Calls

from autoglm_ops.cli import doctor
from autoglm_ops.cluster.services import Service

pytestmark = needs_slurm


@pytest.fixture
def submit(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Calls:
    monkeypatch.setenv("AUTOGLM__CLUSTER__SLURM__LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("AUTOGLM__CLUSTER__BACKEND", "slurm")
    return Calls(tmp_path, capsys, monkeypatch)


def queue() -> str:
    return command("squeue", "--noheader", "--format=%j")


def test_a_job_goes_on_without_its_keeper_and_is_found_again(submit: Calls) -> None:
    """As when the machine that submitted it was restarted."""
    ident = submit.submitted("--gpus", "1", "--env", "NOTE=far", ticks=40)
    submit.wait(lambda: submit.says(ident, "begins far"))
    os.kill(Service.read(submit.home / "jobs" / ident / "keeper.json").pid, signal.SIGKILL)
    followed = submit("logs", ident, "--follow")
    assert followed.exit == 0 and "tick 39" in submit("logs", ident).out
    ended = submit.ended(ident)
    assert (ended["state"], ended["backend"]) == ("succeeded", "slurm")
    assert (Path(ended["output"]) / "out" / "made").read_text() == ident


def test_a_cancel_takes_it_off_the_cluster(submit: Calls) -> None:
    ident = submit.submitted(ticks=600)
    submit.wait(lambda: submit.says(ident, "tick 0"))
    assert submit("cancel", ident, "--json").json["state"] == "cancelled"
    assert queue() == ""


def test_what_the_cluster_refuses_is_no_job(submit: Calls) -> None:
    said = submit("--gpus", "9", "--", "true")
    assert said.exit == 3 and "Requested node configuration is not available" in said.err
    assert submit("list", "--json").json == []
    said = submit("--image", "registry/trainer:1", "--", "true")
    assert said.exit == 2 and "cluster.slurm.prefix" in said.err


def test_a_job_waits_for_others_and_is_refused_once_one_of_them_has_failed(submit: Calls) -> None:
    first, failing = submit.submitted(ticks=8), submit.submitted(ticks=15, code=4)
    both = [word for ident in (first, failing) for word in ("--after", ident)]
    then, never = submit.submitted("--after", first), submit.submitted(*both)
    assert "Dependency" in command("squeue", "--noheader", "--states=PENDING", "--format=%r")
    assert submit("status", then, "--json").json["state"] == "pending"
    assert submit.ended(then)["state"] == "succeeded" and submit.ended(first)["state"] == "succeeded"
    ended = submit.ended(never)
    assert (ended["state"], ended["exit"]) == ("refused", 3) and "DependencyNeverSatisfied" in ended["reason"]
    assert submit.ended(failing)["exit"] == 4
    said = submit("--after", failing, "--", "true")
    assert said.exit == 3 and f"job {failing} has not succeeded (failed" in said.err
    assert submit.submitted("--after", first) and queue().count("autoglm-job-") == 1, "what has succeeded is not waited for"
    submit.ended(submit("list", "--json").json[0]["id"])


def test_doctor_says_whether_the_controller_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM__CLUSTER__BACKEND", "slurm")
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(ROOT))
    [found] = [check for check in doctor.look() if check.name == "slurm"]
    assert found.ok and found.needed and "UP" in found.found
