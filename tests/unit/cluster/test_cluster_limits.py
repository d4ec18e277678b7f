"""What a local job may use: held for the whole job, not only for the process that was started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from autoglm_ops.cluster.limits import limits_of, used
from autoglm_ops.cluster.local import LocalLauncher
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Resources
from autoglm_ops.errors import UsageError

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits are applied on Linux alone")
HOLD = "import os, time\nheld = b'x' * (120 << 20)\n"


def run(code: str, tmp_path: Path, **asked: object) -> JobStatus:
    job = JobSpec(name="job", command=(sys.executable, "-c", code), workdir=str(tmp_path), resources=Resources(**asked))
    return LocalLauncher(grace=1).run(job)


@linux
def test_processors_open_files_and_core_files_are_limited(tmp_path: Path) -> None:
    code = (
        "import os, resource, subprocess, sys\n"
        "assert len(os.sched_getaffinity(0)) == 1\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 65536\n"
        "sys.exit(subprocess.run([sys.executable, '-c', 'import os; raise SystemExit(len(os.sched_getaffinity(0)))']).returncode)"
    )
    assert run(code, tmp_path, cpu=0.5).exit == 1  # the grandchild counted one processor


@linux
def test_what_is_not_asked_for_is_not_limited(tmp_path: Path) -> None:
    code = f"import os, resource, sys; sys.exit(0 if len(os.sched_getaffinity(0)) == {len(os.sched_getaffinity(0))} and resource.getrlimit(resource.RLIMIT_DATA)[0] < 0 else 1)"
    assert run(code, tmp_path).exit == 0


@linux
def test_a_job_that_holds_too_much_in_all_its_processes_is_ended_whole(tmp_path: Path) -> None:
    """Each of the three stays under the limit; one has left the session."""
    code = f"import subprocess, sys, time; [subprocess.Popen([sys.executable, '-c', {HOLD + 'time.sleep(60)'!r}], start_new_session=n > 0) for n in range(3)]; time.sleep(60)"
    status = run(code, tmp_path, memory_gib=0.25)
    assert (status.state, status.exit) == ("lost", 3)
    assert status.reason.startswith("out-of-memory: its processes held 0.") and "cluster.resources.memory_gib" in status.reason
    assert status.seconds < 20
    assert not [entry for entry in Path("/proc").glob("[0-9]*/cmdline") if b"held = b'x'" in _read(entry)]


@linux
def test_memory_that_processes_share_counts_once(tmp_path: Path) -> None:
    code = HOLD + "children = [os.fork() for _ in range(1)]\nif children[0]: os.fork()\ntime.sleep(2)\n"
    assert run(code, tmp_path, memory_gib=0.25).state == "succeeded"


@linux
def test_one_process_cannot_take_more_between_two_looks(tmp_path: Path) -> None:
    status = run("b'x' * (3 << 30)", tmp_path, memory_gib=0.25)
    assert (status.state, status.exit) == ("failed", 1)


@linux
def test_what_this_process_holds_is_seen() -> None:
    assert used([os.getpid()]) > 10 << 20
    assert used([2**22 + 1]) == 0


def test_parts_of_a_processor_are_rounded_up() -> None:
    assert limits_of(Resources(cpu=1.5, memory_gib=0.5)) == (2, 1 << 29)
    assert limits_of(Resources()) == (None, None)


def test_more_nodes_than_this_machine_are_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="asks for 2 nodes and this machine is one"):
        run("", tmp_path, nodes=2)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
