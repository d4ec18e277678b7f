"""Slurm without a Slurm: a job as words, what Slurm says as a status, a growing log. tests/cluster has the real one."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

import pytest
from hostile_strings import hostile
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.cluster import slurm_batch, slurm_commands, slurm_watch
from autoglm_ops.cluster.local import Flag
from autoglm_ops.cluster.slurm import SlurmLauncher
from autoglm_ops.cluster.slurm_state import parse, status
from autoglm_ops.cluster.tail import Tail
from autoglm_ops.contracts.cluster import JobSpec, Resources
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.errors import Refused, TryAgain, UsageError

PLACE = SlurmPlace(logs="/shared/logs")
SCRIPT = Path("/tmp/job.sh")
PLAIN = "x--privileged"
"""Of the hostile strings, this one is a word like any other (and the very long ones could be a variable's name)."""
HOSTILE = (
    "$(touch /tmp/evil)", "`id`", "; rm -rf /", "&& id", "| id", "\n#SBATCH --uid=0", "a\nb", "'", '"', "\\", "--uid=0", "-", "%j%x",
    "{{ conf }}", "${HOME}", "*", "~root", "\u202e", "é", "a b", "a\tb", "<(id)", "!!", "#", "a,b=c", "\x1b[31m",
)  # fmt: skip


def job(**more: object) -> JobSpec:
    return JobSpec.model_validate({"name": "train", "command": ("python", "-m", "x"), "deadline_seconds": 100, **more})


def test_a_job_becomes_these_words() -> None:
    wanted = Resources(nodes=2, gpus=4, cpu=7.5, memory_gib=30)
    place = SlurmPlace(logs="/shared/logs", partition="gpu", account="vision", qos="long")
    spec = job(
        key="a" * 64,
        attempt=3,
        store="s3://b/p",
        resources=wanted,
        team="vision",
        priority="low",
        workdir="/w",
        secrets=("TOKEN",),
    )
    assert slurm_batch.words(spec, place, SCRIPT) == [
        "sbatch", "--parsable", "--requeue", "--job-name=autoglm-train-aaaaaaaaaaaaaaaa-3", f"--comment=autoglm/{'a' * 64}/3/vision",
        "--output=/shared/logs/autoglm-train-aaaaaaaaaaaaaaaa-3.log", "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--gpus-per-node=4", "--cpus-per-task=8", "--mem=30720M", "--time=4", "--signal=TERM@60",
        "--nice=1000", "--partition=gpu", "--account=vision", "--qos=long", "--chdir=/w", "--open-mode=append",
        "--export=AUTOGLM_JOB_ATTEMPT,AUTOGLM_JOB_STORE,HOME,LANG,LC_ALL,PATH,PYTHONPATH,TMPDIR,TOKEN,TZ,USER",
        "/tmp/job.sh", "python", "-m", "x",
    ]  # fmt: skip


def test_a_job_that_waits_for_others_says_for_which() -> None:
    words = slurm_batch.words(job(), PLACE, SCRIPT, ("7", "9_3"))
    assert "--dependency=afterok:7:9_3" in words and "--kill-on-invalid-dep=yes" in words
    assert not [word for word in slurm_batch.words(job(), PLACE, SCRIPT) if "dep" in word]


def test_a_comment_tells_our_jobs_from_others() -> None:
    assert slurm_batch.marked(slurm_batch.mark(job(key="a" * 64, attempt=3))) == ("a" * 64, 3)
    for other in ("", "(null)", "team=x", slurm_batch.mark(job()), "autoglm/../3/x", f"autoglm/{'A' * 64}/1/x"):
        assert slurm_batch.marked(other) is None


def test_what_is_not_asked_for_is_left_to_the_cluster() -> None:
    words = slurm_batch.words(job(deadline_seconds=None), PLACE, SCRIPT)
    assert not [
        word
        for word in words
        if word.startswith(("--gpus", "--mem", "--cpus", "--time", "--signal", "--partition", "--account"))
    ]


@pytest.mark.parametrize("value", [*HOSTILE, *hostile()])
def test_F27_a_value_is_one_word_or_refused_and_never_part_of_the_script(value: str, tmp_path: Path) -> None:
    """Wherever a value goes in; the script is the same bytes for all, and a shell that runs it gets the command as it was."""
    spec = job(command=("show", value), environment={"V": value}, image=value)
    place = SlurmPlace(logs=f"/shared/{value}".replace("\\", ""), prefix=("run", "{image}"))
    words = slurm_batch.words(spec, place, SCRIPT)
    assert words[words.index(str(SCRIPT)) + 1 :] == ["run", value, "show", value]
    assert not [word for word in words[: words.index(str(SCRIPT))] if not word.startswith("--") and word != "sbatch"]
    assert slurm_batch.environment(spec, {})["V"] == value
    for bad in ({"name": value}, {"environment": {value: "x"}}, {"secrets": (value,)}):
        if value != PLAIN and (value.strip("x") or "name" in bad):
            with pytest.raises(UsageError):
                slurm_batch.words(job(**bad), place, SCRIPT)
    for field in ("team", "store", "workdir"):
        beside = slurm_batch.words(job(**{field: value, "key": "a" * 64}), PLACE, SCRIPT)
        assert len(beside) == len(slurm_batch.words(job(**{field: "x", "key": "a" * 64}), PLACE, SCRIPT))
    script = tmp_path / "job.sh"
    script.write_text(slurm_batch.SCRIPT.replace("srun ", "printf '%s\\0' "))
    heard = subprocess.run(["sh", script, "show", value], capture_output=True, check=True).stdout
    assert heard.split(b"\0")[-2].decode() == value
    if value != PLAIN:
        with pytest.raises(ValueError, match="pattern"):
            SlurmPlace(partition=value)


@given(st.text(max_size=40))
def test_F27_a_name_is_plain_or_refused(name: str) -> None:
    try:
        checked = slurm_batch.checked_name(name)
    except UsageError:
        return
    assert shlex.quote(checked) == checked and "/" not in checked and not checked.startswith("-")


def test_F28_a_secret_is_in_no_word() -> None:
    spec = job(secrets=("TOKEN",), environment={"A": "b"})
    assert "s3cret" not in " ".join(slurm_batch.words(spec, PLACE, SCRIPT))
    assert slurm_batch.environment(spec, {"TOKEN": "s3cret", "OTHER": "x", "SLURM_CONF": "/c"}) == {
        "TOKEN": "s3cret", "A": "b", "SLURM_CONF": "/c",
    }  # fmt: skip
    with pytest.raises(UsageError, match="needs the secret TOKEN"):
        slurm_batch.environment(spec, {})


def test_an_image_needs_something_that_starts_it() -> None:
    with pytest.raises(UsageError, match=r"cluster\.slurm\.prefix"):
        slurm_batch.command(job(image="registry/x:1"), PLACE)
    place = SlurmPlace(prefix=("apptainer", "exec", "--nv", "{image}"))
    assert slurm_batch.command(job(image="x.sif"), place) == ["apptainer", "exec", "--nv", "x.sif", "python", "-m", "x"]
    with pytest.raises(UsageError, match="NUL"):
        slurm_batch.command(job(command=("a\0b",)), PLACE)


LINE = (
    "JobId=7 JobName=autoglm-x UserId=u(1) JobState={state} Reason={why} Dependency=(null) Requeue=1 Restarts=1 ExitCode={code} "
    "SubmitTime=2026-11-26T18:35:29 NodeList=n[1-2] Command=./job.sh JobState=COMPLETED ExitCode=0:0 Comment=JobState=RUNNING"
)


@pytest.mark.parametrize(
    ("state", "why", "code", "told"),
    [
        ("COMPLETED", "None", "0:0", ("succeeded", 0, "")),
        ("FAILED", "NonZeroExitCode", "3:0", ("failed", 3, "exit")),
        ("FAILED", "NonZeroExitCode", "143:0", ("cancelled", 143, "cancelled")),
        ("FAILED", "RaisedSignal:9(Killed)", "0:9", ("lost", 75, "failed: signal 9")),
        ("OUT_OF_MEMORY", "OutOfMemory", "0:125", ("lost", 3, "out-of-memory")),
        ("TIMEOUT", "TimeLimit", "0:15", ("deadline", 3, "deadline")),
        ("DEADLINE", "None", "0:0", ("deadline", 3, "deadline")),
        ("NODE_FAIL", "NodeDown", "1:0", ("lost", 75, "node-fail")),
        ("BOOT_FAIL", "None", "0:0", ("lost", 75, "boot-fail")),
        ("PREEMPTED", "None", "0:0", ("lost", 75, "preempted")),
        ("CANCELLED", "None", "0:15", ("cancelled", 143, "cancelled")),
    ],
)
def test_every_end_has_a_reason(state: str, why: str, code: str, told: tuple[str, int, str]) -> None:
    """What this Slurm cannot be made to do (out of memory, a node that fails) is held here, from its documented words."""
    seat = parse(LINE.format(state=state, why=why, code=code))
    found = status(seat, 1.0)
    assert (found.state, found.exit) == told[:2] and found.reason.startswith(told[2])
    assert seat.seen == "ended" and (not found.reason or "job 7 on n[1-2]" in found.reason)


@pytest.mark.parametrize(
    ("state", "why", "seen", "hopeless"),
    [
        ("PENDING", "Resources", "pending", False),
        ("PENDING", "BadConstraints", "pending", True),
        ("PENDING", "PartitionNodeLimit", "pending", True),
        ("REQUEUED", "BeginTime", "pending", False),
        ("RUNNING", "None", "running", False),
        ("COMPLETING", "None", "running", False),
        ("FAILED", "BadConstraints", "ended", False),
    ],
)
def test_waiting_that_can_end_is_told_from_waiting_that_cannot(state: str, why: str, seen: str, hopeless: bool) -> None:
    seat = parse(LINE.format(state=state, why=why, code="0:0"))
    assert (seat.seen, seat.hopeless is not None) == (seen, hopeless)
    assert seat.submitted > 0 and seat.restarts == 1


def fake(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of Slurm's that answers as a real one does when things are wrong; the right answers come from a real one."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", Refused),
        ("sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)", Refused),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", TryAgain),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", TryAgain),
    ],
)
def test_a_refusal_is_told_from_a_controller_that_is_away(
    said: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, "sbatch", f"echo {shlex.quote(said)} >&2; exit 1", monkeypatch)
    with pytest.raises(error, match=r"not available|policy|Unable to contact|timed out"):
        slurm_commands.submit(["sbatch"], {"PATH": str(tmp_path) + ":/bin:/usr/bin"})


@pytest.mark.parametrize(
    "limit",
    [
        "AssocMaxSubmitJobLimit", "AssocGrpSubmitJobsLimit", "QOSMaxSubmitJobPerUserLimit", "QOSGrpSubmitJobsLimit",
        "MaxSubmitJobsPerAccount",
    ],
)  # fmt: skip
def test_a_limit_on_submitted_jobs_ends_when_others_do(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names are slurmctld's own. It had been a final refusal, as of a job that asks for too much."""
    policy = (
        "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
    )
    said = f"sbatch: error: {limit}\nsbatch: error: {policy}"
    fake(tmp_path, "sbatch", f"echo {shlex.quote(said)} >&2; exit 1", monkeypatch)
    with pytest.raises(TryAgain, match=f"takes no more jobs .* now: {limit}"):
        slurm_commands.submit(["sbatch"], {"PATH": str(tmp_path) + ":/bin:/usr/bin"})
    said = said.replace(limit, "QOSMaxWallDurationPerJobLimit")
    fake(tmp_path, "sbatch", f"echo {shlex.quote(said)} >&2; exit 1", monkeypatch)
    with pytest.raises(Refused, match="QOSMaxWall"):
        slurm_commands.submit(["sbatch"], {"PATH": str(tmp_path) + ":/bin:/usr/bin"})


def test_a_persons_shell_changes_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$SQUEUE_NAMES had hidden our jobs, so that each was started twice; after $SLURM_TIME_FORMAT=relative each was over its deadline at once.

    The commands here take from the environment what the real ones do.
    """
    fake(tmp_path, "squeue", '[ -n "$SQUEUE_NAMES$SQUEUE_PARTITION" ] || echo "7|autoglm-x|-"', monkeypatch)
    moment = '[ "$SLURM_TIME_FORMAT" = relative ] && echo "20:14:06" || date -d @1700000000 +%FT%T'
    fake(tmp_path, "scontrol", f'echo "JobId=7 JobName=x JobState=RUNNING Reason=None StartTime=$({moment})"', monkeypatch)
    for name, value in {"SQUEUE_NAMES": "mine", "SQUEUE_PARTITION": "gpu", "SLURM_TIME_FORMAT": "relative"}.items():
        monkeypatch.setenv(name, value)
    assert slurm_commands.mine() == [(7, "autoglm-x", "-")]
    assert slurm_commands.seats_of(7)[0].started == 1_700_000_000


def test_F26_an_hour_that_comes_twice_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """02:30 of the night when the clocks go back: it had been the first one, and a deadline an hour early."""
    started = 1_698_543_000  # 2023-10-29 01:30 UTC, the second 02:30 in Berlin
    fake(tmp_path, "scontrol", f'echo "JobId=7 JobState=RUNNING StartTime=$(date -d @{started} +%FT%T)"', monkeypatch)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert slurm_commands.seats_of(7)[0].started == started
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_without_the_commands_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"squeue is not installed here; .* login node"):
        SlurmLauncher(PLACE).look(job())


@pytest.mark.parametrize("away", [1, 2, 3, 4])
def test_a_controller_that_is_away_when_a_job_is_over_its_time_changes_nothing(
    away: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many answers fail: the job is ended by its deadline, once. It had been called one to try again, and was run anew."""
    gone = 'echo "error: Unable to contact slurm controller (connect failure)" >&2; exit 1'
    count = f'cd {tmp_path}; echo x >> asked; [ "$(wc -l < asked)" -le {away} ] && {{ {gone}; }}'
    fake(tmp_path, "scancel", f"{count}; touch cancelled", monkeypatch)
    line = "JobId=7 JobName=x Reason=None SubmitTime=2026-11-26T18:00:00 StartTime=2026-11-26T18:00:00"
    running = f'[ -e {tmp_path}/cancelled ] || {{ echo "{line} JobState=RUNNING"; exit 0; }}'
    fake(tmp_path, "scontrol", f'{running}; {count}; echo "{line} JobState=CANCELLED"', monkeypatch)
    [seat] = slurm_commands.seats_of(7)
    watch = slurm_watch.Watch(job(deadline_seconds=5.0), seat, SlurmPlace(logs=str(tmp_path)), lambda *_: None)
    [status] = slurm_watch.follow([watch], 0.01, Flag())
    assert (status.state, status.exit) == ("deadline", 3)


def test_a_log_is_given_line_by_line_however_it_grows(tmp_path: Path) -> None:
    heard: list[bytes] = []
    tail = Tail(tmp_path / "log")
    tail.forward(lambda _, line: heard.append(line))
    assert (heard, tail.seen) == ([], False)
    for piece in (b"a\nb", b"c\n", b"\xff\n", b"d" * 70_000, b"e\nlast"):
        with tail.path.open("ab") as file:
            file.write(piece)
        tail.forward(lambda _, line: heard.append(line))
    tail.finish(lambda _, line: heard.append(line))
    assert heard[:3] == [b"a\n", b"bc\n", b"\xff\n"] and heard[-1] == b"last"
    assert b"".join(heard) == tail.path.read_bytes() and max(map(len, heard)) < 140_000
