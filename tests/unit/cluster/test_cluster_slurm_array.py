"""Many jobs as one Slurm array, without a Slurm: its words, who is which element, and what Slurm says of elements."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hostile_strings import hostile
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.cluster import slurm_array, slurm_batch
from autoglm_ops.cluster.local import Flag
from autoglm_ops.cluster.slurm_state import array_size, covers, element, parse, rows, status
from autoglm_ops.cluster.slurm_watch import Watch
from autoglm_ops.contracts.cluster import JobSpec
from autoglm_ops.contracts.slurm import SlurmPlace

PLACE = SlurmPlace(logs="/shared/100%")
SCRIPT = Path("/tmp/job.sh")
KEYS = st.text("0123456789abcdef", min_size=64, max_size=64)


def job(number: int = 0, **more: object) -> JobSpec:
    given = {
        "name": "trial",
        "command": ("python", "-m", "x", str(number)),
        "key": f"{number:064x}",
        "attempt": 1,
        "store": "s3://b/p",
    }
    return JobSpec.model_validate({**given, **more})


def test_three_jobs_become_these_words() -> None:
    jobs = [job(0), job(1, attempt=12), job(2)]
    name = slurm_array.name_of(jobs)
    words = slurm_array.words(jobs, PLACE, SCRIPT, 2, "77")
    assert words[3:9] == [
        f"--job-name={name}", f"--comment={slurm_array.roster(jobs)}", "--array=0-2%2", f"--output=/shared/100%%/{name}_%a.log",
        "--dependency=afterany:77", "--kill-on-invalid-dep=yes",
    ]  # fmt: skip
    assert words[words.index(str(SCRIPT)) + 1 :] == [
        "6", "env", "AUTOGLM_JOB_ATTEMPT=1", "python", "-m", "x", "0", "6", "env", "AUTOGLM_JOB_ATTEMPT=12", "python", "-m", "x", "1",
        "6", "env", "AUTOGLM_JOB_ATTEMPT=1", "python", "-m", "x", "2",
    ]  # fmt: skip
    assert not [word for word in slurm_array.words(jobs, PLACE, SCRIPT, None) if "%2" in word or "dependency" in word]
    assert str(slurm_array.log_of(name, "1", PLACE)) == f"/shared/100%/{name}_1.log"


@pytest.mark.parametrize("task", [0, 1, 2])
def test_F27_an_element_runs_its_own_words_as_they_were(task: int, tmp_path: Path) -> None:
    """The shell counts words and reads none."""
    commands = [("show", *hostile()[at::3], "", "3") for at in range(3)]
    jobs = [job(at, command=command) for at, command in enumerate(commands)]
    script = tmp_path / "job.sh"
    script.write_text(slurm_array.SCRIPT.replace("exec srun ", "exec printf '%s\\0' "))
    environment = {"SLURM_ARRAY_TASK_ID": str(task), "PATH": "/usr/bin:/bin"}
    heard = subprocess.run(
        ["sh", str(script), *slurm_array.arguments(jobs, PLACE)], capture_output=True, check=True, env=environment, cwd=tmp_path
    ).stdout.split(b"\0")
    start = heard.index(b"env")
    assert [word.decode() for word in heard[start:-1]] == ["env", "AUTOGLM_JOB_ATTEMPT=1", *commands[task]]
    assert [path.name for path in tmp_path.iterdir()] == ["job.sh"]


@given(st.lists(st.tuples(KEYS, st.integers(1, 10**9 - 1)), min_size=1, max_size=15))
def test_a_comment_says_whose_each_index_is(marks: list[tuple[str, int]]) -> None:
    jobs = [job(key=key, attempt=attempt) for key, attempt in marks]
    comment = slurm_array.roster(jobs)
    assert slurm_array.listed(comment) == tuple(marks)
    assert slurm_array.handles(slurm_array.name_of(jobs), comment) == tuple(one.handle for one in jobs)


@given(st.text(max_size=60))
def test_somebody_elses_comment_says_nothing(comment: str) -> None:
    assert slurm_array.listed(comment) == ()
    assert slurm_array.handles("theirs", comment) == ("theirs",)


def test_a_job_alone_is_an_array_of_one_to_those_who_look() -> None:
    assert slurm_array.listed(slurm_batch.mark(job(5, attempt=2))) == ((f"{5:064x}", 2),)
    assert slurm_array.handles(job(5).handle, slurm_batch.mark(job(5))) == (job(5).handle,)


@given(st.integers(1, 120), st.integers(0, 60), st.integers(1, 10**6), st.text("abc", max_size=63))
def test_jobs_are_cut_into_arrays_that_slurm_takes(count: int, most: int, attempt: int, team: str) -> None:
    jobs = [job(at, attempt=attempt, team=team) for at in range(count)]
    groups = slurm_array.groups(jobs, most)
    assert [one for group in groups for one in group] == jobs
    assert all(len(group) == 1 or (len(group) <= most and len(slurm_array.roster(group)) <= 1024) for group in groups)


def test_a_round_of_sixteen_is_one_array_and_what_differs_is_another() -> None:
    jobs = [job(at, team="a-team-of-some-name") for at in range(16)]
    assert slurm_array.groups(jobs, 1001) == [tuple(jobs)]
    assert [len(group) for group in slurm_array.groups([job(at) for at in range(50)], 1001)] == [21, 21, 8], (
        "as the README says"
    )
    assert slurm_array.groups(jobs, 0) == [(one,) for one in jobs], "a cluster without arrays"
    odd = [job(0), job(1), job(2, image="x"), job(3, key=None), job(4, key=None)]
    assert [len(group) for group in slurm_array.groups(odd, 1001)] == [2, 1, 1, 1]


@given(st.sets(st.integers(0, 40), min_size=1), st.integers(0, 40), st.sampled_from(["", "%2"]))
def test_slurms_list_of_indices_is_understood(indices: set[int], asked: int, slots: str) -> None:
    parts = [f"{index}-{index + 1}" if index + 1 in indices else str(index) for index in sorted(indices)]
    assert covers(",".join(parts) + slots, asked) == (asked in indices)


def test_ranges_with_steps_and_lists_that_are_cut_short() -> None:
    assert [index for index in range(12) if covers("1-9:4,11%3", index)] == [1, 5, 9, 11]
    assert covers("1,3,5,...", 77), "it may be among those that are not shown"
    assert not any(covers(text, 1) for text in ("", "N/A", "x-y", "1-", "-1", "0-0:0"))


LINE = (
    "JobId={number} ArrayJobId=70 ArrayTaskId={task} ArrayTaskThrottle=2 JobName=autoglm-x-array UserId=u(1) JobState={state} Reason={why} "
    "Dependency=(null) Restarts=0 ExitCode={code} SubmitTime=2026-11-26T18:00:00 StartTime={start} NodeList=(null) Command=./job.sh"
)


def seat(
    task: str, state: str = "RUNNING", why: str = "None", code: str = "0:0", number: int = 71, start: str = "Unknown"
) -> object:
    return parse(LINE.format(number=number, task=task, state=state, why=why, code=code, start=start))


def test_an_element_has_a_line_of_its_own_or_shares_that_of_those_who_wait() -> None:
    seats = [seat("3-7%2", "PENDING", "JobArrayTaskLimit", number=70), seat("0"), seat("1", "FAILED", code="3:0", number=72)]
    assert element(seats, 0).ident == "70_0" and element(seats, 0).place == (70, 0)
    waiting = element(seats, 5)
    assert (waiting.ident, waiting.seen, waiting.place) == ("70_5", "pending", (70, 5))
    assert element(seats, 2) is None, "Slurm knows it no more"
    assert element([seat("", "CANCELLED", number=70), *seats[1:]], 0).ident == "70_0", (
        "what is left of those that were cancelled first"
    )
    ended = status(element(seats, 1), 1.0)
    assert (ended.state, ended.exit) == ("failed", 3) and "job 70_1" in ended.reason


def test_what_waits_in_vain_is_refused_whether_slurm_removes_it_or_not() -> None:
    waiting = seat("0", "PENDING", "DependencyNeverSatisfied")
    gone = status(seat("0", "CANCELLED", "DependencyNeverSatisfied"), 1.0)
    assert (gone.state, gone.exit) == ("refused", 3) and waiting.hopeless and gone.reason.startswith(waiting.hopeless)


def test_waiting_for_jobs_of_ours_is_no_time_of_a_job() -> None:
    now = seat("0").submitted
    watch = Watch(job(1, deadline_seconds=100), element([seat("1-3", "PENDING", "Resources", number=70)], 1), PLACE, print)

    def overdue(later: float, *others: object, why: str = "Resources") -> bool:
        watch.hear([seat("1-3", "PENDING", why, number=70), *others], 0, now + later)
        return watch.overdue(Flag(), 0, now + later) is not None

    assert not overdue(90) and overdue(110)
    assert not overdue(120, seat("0")), "another of the array holds the place"
    assert not overdue(215) and overdue(225)
    assert not overdue(400, why="Dependency") and not overdue(600, why="JobArrayTaskLimit")
    watch.hear([seat("1", start="2026-11-26T18:16:40")], 0, now + 1000)
    assert watch.overdue(Flag(), 0, now + 1099) is None and watch.overdue(Flag(), 0, now + 1101) is not None


def test_an_element_that_is_known_no_more_was_cancelled_if_it_never_began_and_is_lost_if_it_had() -> None:
    """What Slurm 22.05 does with an element that is cancelled while it waits: it drops out of the list."""
    waiting, running = seat("1-3", "PENDING", "JobArrayTaskLimit", number=70), seat("0")
    for before, others, state in ((waiting, [running], "cancelled"), (running, [waiting], "lost"), (waiting, [], "lost")):
        watch = Watch(job(), element([before], 1 if before is waiting else 0), PLACE, print)
        watch.hear([other._replace(task="2") for other in others], 1.0, waiting.submitted)
        assert watch.ended is not None and watch.ended.state == state


@given(st.text(max_size=200))
def test_no_line_of_squeues_is_a_fault(text: str) -> None:
    assert all(number >= 0 for number, _, _ in rows(text))


def test_an_array_is_listed_once() -> None:
    assert rows("70|a|c|d\n70|a|c|d\nx|y|z\n71|b\n72|n|\n") == [(70, "a", "c|d"), (72, "n", "")]


def test_how_large_an_array_may_be() -> None:
    assert array_size("MaxArraySize            = 1001\nSchedulerParameters     = (null)\n") == 1001
    assert array_size("SchedulerParameters     = bf_window=5,max_array_tasks=8\nMaxArraySize = 1001\n") == 8
    assert array_size("") == 0
