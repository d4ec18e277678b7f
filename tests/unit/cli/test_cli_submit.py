"""`autoglm submit` on this machine: detached, followed, cancelled, and refused before anything starts."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from submit_calls import Calls

from autoglm_ops.cluster.services import Service, start_time


@pytest.fixture
def submit(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(tmp_path, capsys, monkeypatch)


def test_a_job_runs_on_after_the_command_ended_and_brings_back_its_output(submit: Calls) -> None:
    ident = submit.submitted("--name", "mine", "--env", "NOTE=well", "--logs", str(submit.folder / "logs"), ticks=3)
    assert ident.startswith("mine-") and submit("status", ident, "--json").json["state"] == "running"
    ended = submit.ended(ident)
    assert (ended["state"], ended["exit"], ended["backend"]) == ("succeeded", 0, "local")
    assert (Path(ended["output"]) / "out" / "made").read_text() == ident
    assert ended["log"] == str(submit.folder / "logs" / f"{ident}.log")
    assert "begins well\ntick 0\ntick 1\ntick 2\n" in submit("logs", ident).out
    assert f"{ident}: succeeded (exit 0" in submit("status", ident).out
    listed = submit("list", "--json").json
    assert [(row["id"], row["state"]) for row in listed] == [(ident, "succeeded")] and "succeeded" in submit("list").out
    assert submit("cancel", ident).out.startswith(f"{ident}: succeeded"), "what is over stays as it ended"


def test_following_ends_with_the_jobs_own_exit_code(submit: Calls) -> None:
    with zipfile.ZipFile(submit.folder / "job.zip", "w") as archive:
        archive.write(submit.code / "go.py", "go.py")
    said = submit("--code", str(submit.folder / "job.zip"), "--wait", "--", "python", "go.py", "2", "5")
    assert said.exit == 5 and "tick 1" in said.out and "failed: exit: it ended with exit code 5" in said.err
    ident = submit("list", "--json").json[0]["id"]
    again = submit("logs", ident, "--follow")
    assert again.exit == 5 and again.out.count("tick 1") == 1


def test_a_cancel_ends_all_that_it_started(submit: Calls) -> None:
    (submit.code / "go.py").write_text(
        "import subprocess, time\np = subprocess.Popen(['sleep', '600'], start_new_session=True)\nprint('pid', p.pid, flush=True)\ntime.sleep(600)\n"
    )
    ident = submit.submitted()
    submit.wait(lambda: submit.says(ident, "pid"))
    pid = int(submit("logs", ident).out.split("pid ")[1].split()[0])
    cancelled = submit("cancel", ident, "--json").json
    assert (cancelled["state"], cancelled["exit"]) == ("cancelled", 143)
    assert start_time(pid) is None
    keeper = Service.read(submit.home / "jobs" / ident / "keeper.json")
    assert start_time(keeper.pid) != keeper.started


def test_a_keeper_that_was_killed_takes_its_job_along_and_that_is_said(submit: Calls) -> None:
    ident = submit.submitted(ticks=300)
    submit.wait(lambda: submit.says(ident, "tick 0"))
    os.kill(Service.read(submit.home / "jobs" / ident / "keeper.json").pid, signal.SIGKILL)
    assert submit.ended(ident)["state"] == "lost"
    assert submit("logs", ident, "--follow").exit == 1


def test_the_same_command_twice_runs_twice(submit: Calls) -> None:
    first, second = submit.submitted(), submit.submitted()
    made = [(Path(submit.ended(ident)["output"]) / "out" / "made").read_text() for ident in (first, second)]
    assert made == [first, second]


def test_F28_a_secret_reaches_the_job_and_nothing_that_is_kept(submit: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "correct-horse-battery")
    (submit.code / "go.py").write_text("import os; print('it has', len(os.environ['MY_TOKEN']), os.environ['MY_TOKEN'])")
    ident = submit.submitted("--secret", "MY_TOKEN")
    assert submit.ended(ident)["state"] == "succeeded" and submit.says(ident, "it has 21 ***")
    found = subprocess.run(["grep", "-r", "correct-horse", submit.home], capture_output=True, text=True, check=False)
    assert found.stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--env", "API_TOKEN=x", "--", "true"], 2, "--secret API_TOKEN"),
        (["--env", "noequals", "--", "true"], 2, "NAME=VALUE"),
        (["--env", "A B=c", "--", "true"], 2, "NAME=VALUE"),
        (["--secret", "NO_SUCH_SECRET", "--wait", "--", "true"], 2, "needs the secret NO_SUCH_SECRET"),
        (["--name", "../evil", "--", "true"], 2, "--name '../evil'"),
        (["--name", "A", "--", "true"], 2, "lower-case"),
        (["--code", "nowhere.zip", "--", "true"], 2, "nowhere.zip is not a file"),
        (["--code", "evil.zip", "--", "true"], 3, "evil.zip is not unpacked: name"),
        (["--code", "evil.tar.gz", "--", "true"], 3, "evil.tar.gz is not unpacked: kind"),
        (["--code", "linked", "--", "true"], 3, "is a link"),
        (["--output", "../x", "--", "true"], 3, "outside its work folder"),
        (["--gpus", "-1", "--", "true"], 2, "cluster.resources.gpus"),
        (["--backend", "moon", "--", "true"], 2, "cluster.backend"),
        (["--wait", "--", "no-such-command"], 2, "cannot start 'no-such-command'"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(
    submit: Calls, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    with zipfile.ZipFile(submit.folder / "evil.zip", "w") as archive:
        archive.writestr("../evil", "x")
    with tarfile.open(submit.folder / "evil.tar.gz", "w:gz") as packed:
        link = tarfile.TarInfo("evil")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link, io.BytesIO())
    (submit.folder / "linked").mkdir()
    (submit.folder / "linked" / "x").symlink_to("/etc/passwd")
    monkeypatch.chdir(submit.folder)
    answer = submit(*words)
    assert answer.exit == code and said in answer.err + answer.out, answer
    assert not (submit.folder.parent / "evil").exists()
    if "--wait" not in words:
        assert submit("list", "--json").json == [], "what was refused is no job"


BAD = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "/etc/passwd",
    "A",
    "a b",
    "a\0b",
    "x" * 64,
    "．．／x",
    "-x",
    "--",
    "job-*",
    "%2e%2e",
    "a\n",
    "é",
]


@pytest.mark.parametrize("verb", ["status", "logs", "cancel"])
def test_F18_an_id_never_leads_out_of_the_jobs(submit: Calls, verb: str) -> None:
    (submit.home / "jobs").mkdir(parents=True)
    (submit.home / "job.json").write_text("{}")
    for bad in BAD:
        said = submit(verb, "--", bad)
        assert said.exit == 2 and "is not a job's id" in said.err, (bad, said)
    assert "no job 'job-123456'" in submit(verb, "job-123456").err


def test_only_slurms_jobs_can_wait_for_others(submit: Calls) -> None:
    ident = submit.submitted()
    submit.ended(ident)
    said = submit("--after", ident, "--", "true")
    assert said.exit == 2 and "only Slurm's jobs can; set cluster.backend to slurm" in said.err
    assert [row["id"] for row in submit("list", "--json").json] == [ident]


def test_what_cannot_be_waited_for_is_said_before_a_cluster_is_asked(submit: Calls) -> None:
    failed, going = submit.submitted(code=4), submit.submitted(ticks=600)
    submit.ended(failed)
    for ident, code, words in (
        (failed, 3, "has not succeeded (failed: exit: it ended with exit code 4)"),
        (going, 2, "it runs on local, and a job on slurm cannot wait for it"),
        ("no-such", 2, "no job 'no-such'"),
    ):
        said = submit("--backend", "slurm", "--after", ident, "--", "true")
        assert said.exit == code and words in said.err
    submit("cancel", going)
