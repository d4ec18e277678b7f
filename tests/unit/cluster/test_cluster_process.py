"""A child process takes everything it started with it: whatever that does to get away, and however it was started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from autoglm_ops.cluster.forked import ADDRESS, zygote_of
from autoglm_ops.cluster.limits import Limits
from autoglm_ops.cluster.process import MARK, ChildProcess, marked
from autoglm_ops.cluster.services import start_time
from autoglm_ops.errors import UsageError

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
body = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", body])                          # in our group
subprocess.Popen([sys.executable, "-c", body], start_new_session=True)  # in a session of its own
time.sleep(0.3)
print("ready", flush=True)
time.sleep(600 if "stay" in sys.argv else 0)
"""


class Lines(list[tuple[str, str]]):
    """A sink that can be waited on."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Event()

    def __call__(self, stream: str, line: bytes) -> None:
        self.append((stream, line.decode("utf-8", errors="replace").rstrip("\n")))
        if b"ready" in line:
            self.ready.set()


def ready(variables: Mapping[str, str]) -> None:
    limit = time.monotonic() + 20
    while not Path(variables[ADDRESS]).exists():
        assert time.monotonic() < limit, "the zygote did not come up"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    log = tmp_path_factory.mktemp("zygote") / "log"
    with zygote_of(log, ["json"]) as variables:
        ready(variables)
        yield variables
    assert log.read_text() == ""


@pytest.fixture(params=["by itself", "forked"], autouse=True)
def way(request: pytest.FixtureRequest, warm: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test holds for both ways to start a child. Its code is `-m body`, from a folder of PYTHONPATH."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if request.param == "forked":
        monkeypatch.setenv(ADDRESS, warm[ADDRESS])
    return str(request.param)


def child(
    code: str,
    *words: str,
    sink: Lines | None = None,
    grace: float = 0.5,
    environment: Mapping[str, str] = {},
    by_itself: bool = False,
) -> ChildProcess:
    Path(os.environ["PYTHONPATH"], "body.py").write_text(code)
    process = ChildProcess(
        [sys.executable, "-m", "body", *words],
        cwd=Path.cwd(),
        environment={**os.environ, **environment},
        sink=sink if sink is not None else Lines(),
        grace=grace,
    )
    assert process.forked == (ADDRESS in os.environ and not environment and not by_itself)
    return process


def left(process: ChildProcess) -> list[int]:
    return marked(process._mark, process.pid)


def test_lines_of_both_streams_and_the_exit_code_arrive():
    lines = Lines()
    process = child("import sys; print('a'); print('b', file=sys.stderr); print('no newline', end=''); sys.exit(3)", sink=lines)
    assert process.wait() == 3
    assert sorted(lines) == [("stderr", "b"), ("stdout", "a"), ("stdout", "no newline")]


def test_stop_ends_grandchildren_that_ignore_sigterm_and_left_the_group():
    lines = Lines()
    process = child(STUBBORN, "stay", sink=lines)
    assert lines.ready.wait(10)
    assert len(left(process)) == 3
    started = time.monotonic()
    threading.Timer(0.1, process.stop).start()
    assert process.wait() == 128 + signal.SIGKILL
    assert time.monotonic() - started < 5
    assert left(process) == []


def test_what_a_child_leaves_behind_when_it_ends_well_is_ended_too():
    process = child(STUBBORN)
    assert process.wait() == 0
    assert left(process) == []


def test_a_gentle_child_has_its_grace_to_finish():
    lines = Lines()
    code = "import signal, sys, time; signal.signal(15, lambda *a: (print('saved', flush=True), sys.exit(7))); print('ready', flush=True); time.sleep(60)"
    process = child(code, sink=lines, grace=10)
    assert lines.ready.wait(10)
    process.stop()
    assert process.wait() == 7
    assert ("stdout", "saved") in lines


@pytest.mark.parametrize("wait", [0.0, 0.001, 0.003, 0.01])
def test_a_stop_in_the_first_milliseconds_is_not_lost(wait: float):
    """Whoever is stopped before it runs its first line ends at once, not after its grace."""
    started = time.monotonic()
    for _ in range(5):  # one after the other: `body.py` is written anew for the next
        process = child("import time; time.sleep(60)", grace=30)
        time.sleep(wait)
        process.stop()
        assert process.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - started < 20


def test_an_exception_while_waiting_ends_everything(monkeypatch: pytest.MonkeyPatch):
    lines = Lines()
    process = child(STUBBORN, "stay", sink=lines)
    assert lines.ready.wait(10)
    monkeypatch.setattr(process, "_doze", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        process.wait()
    assert left(process) == []


def test_a_deadline_gives_none_and_leaves_nothing():
    process = child("import time; time.sleep(60)")
    assert process.wait(0.3) is None
    assert left(process) == []


def test_a_child_learns_that_its_parent_was_killed(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom autoglm_ops.cluster.process import ChildProcess\n"
        "c = ChildProcess([sys.executable, '-m', 'body'], cwd=Path('.'), environment=os.environ, sink=print)\n"
        "print(c.pid, flush=True); c.wait()\n"
    )
    (tmp_path / "body.py").write_text("import time; time.sleep(60)")
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.5)
    assert start_time(pid) is not None
    parent.kill()
    parent.wait()
    limit = time.monotonic() + 5
    while start_time(pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert start_time(pid) is None


@pytest.mark.parametrize(("command", "folder"), [("no-such-command", "."), (sys.executable, "no-such-folder")])
def test_what_cannot_start_is_one_message(command: str, folder: str):
    with pytest.raises(UsageError, match="cannot start"):
        ChildProcess([command], cwd=Path(folder), environment=os.environ, sink=Lines())


def test_a_line_without_end_is_cut_and_memory_stays_bounded():
    lines = Lines()
    assert child("import sys; sys.stdout.write('x' * 200_000)", sink=lines).wait() == 0
    assert max(len(text) for _, text in lines) <= 1 << 16
    assert sum(len(text) for _, text in lines) == 200_000


SAY = """
import json, os, random, sys, time
import numpy
print(json.dumps({"argv": sys.argv[1:], "name": __name__, "cwd": os.getcwd(), "environ": dict(os.environ), "path": sys.path[:2],
    "leads": os.getsid(0) == os.getpid(), "title": open("/proc/self/cmdline").read().rstrip("\\0 ").split("\\0"), "zone": time.tzname,
    "marks": open("/proc/self/environ").read().split("AUTOGLM_JOB_MARKS=")[1].split("\\0")[0].strip(),
    "handles": sorted(int(n) for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")),
    "signals": [str(__import__("signal").getsignal(n)) for n in (15, 17)], "drawn": [random.random(), numpy.random.random()]}))
"""


def told(*words: str) -> dict[str, Any]:
    lines = Lines()
    assert child(SAY, *words, sink=lines).wait() == 0, lines
    answer: dict[str, Any] = json.loads(lines[-1][1])
    return answer


def test_a_child_is_the_same_however_it_was_started(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A_VARIABLE", "of now")
    monkeypatch.setenv(MARK, "outer")
    said = told("--word", "two words")
    assert said["argv"] == ["--word", "two words"] and said["name"] == "__main__" and said["cwd"] == str(Path.cwd())
    outer, mine = said["marks"].split()
    assert outer == "outer" and said["environ"][MARK] == f"outer {mine}", "found by whoever looks for what it started"
    assert said["environ"]["A_VARIABLE"] == "of now"
    assert said["path"] == [str(Path.cwd()), os.environ["PYTHONPATH"]]
    assert said["leads"] and said["title"][1:] == ["-m", "body", "--word", "two words"]
    assert said["handles"] == [0, 1, 2], "a handle of another's connection would hide its end"
    assert said["signals"] == ["0", "0"]


def test_no_two_children_draw_the_same():
    one, two = told(), told()
    assert one["drawn"][0] != two["drawn"][0] and one["drawn"][1] != two["drawn"][1]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("import sys; sys.exit('why')", 1, "why"),
        ("import sys; sys.exit(75)", 75, ""),
        ("raise ValueError('broken')", 1, "ValueError: broken"),
        ("raise KeyboardInterrupt", 128 + 2, "KeyboardInterrupt"),
        ("import atexit; atexit.register(print, 'last'); raise ValueError('broken')", 1, "last"),
        ("import os; os.kill(os.getpid(), 9)", 128 + 9, ""),
        ("import atexit; atexit.register(print, 'last')", 0, "last"),
        ("import threading, time; threading.Thread(target=lambda: (time.sleep(.2), print('later'))).start()", 0, "later"),
    ],
)
def test_ends_are_told_as_they_are(body: str, code: int, said: str):
    lines = Lines()
    assert child(body, sink=lines).wait() == code
    assert any(said in text for _, text in lines) or not said


def test_output_that_is_lost_at_the_end_is_no_success():
    body = "import sys\nclass Full:\n    closed = False\n    def flush(self): raise OSError('disk full')\nsys.stdout = Full()"
    lines = Lines()
    assert child(body, sink=lines).wait() not in (0, None)
    assert any("disk full" in text for _, text in lines)


def test_many_at_once_keep_their_own_ends():
    processes = []
    for number in range(24):
        lines = Lines()
        body = f"import sys; print({number}, flush=True); sys.exit({number})"
        processes.append((child(body, sink=lines), lines))
        limit = time.monotonic() + 5
        while not lines and time.monotonic() < limit:  # `body.py` is written anew for the next
            time.sleep(0.01)
    for number, (process, lines) in enumerate(processes):
        assert process.wait() == number and lines == [("stdout", str(number))]


def test_what_is_read_at_a_start_is_given_to_a_start_of_its_own(way: str, caplog: pytest.LogCaptureFixture):
    lines = Lines()
    with caplog.at_level("INFO"):
        process = child("import os; print(os.environ['OMP_NUM_THREADS'])", sink=lines, environment={"OMP_NUM_THREADS": "2"})
    assert process.wait() == 0 and lines == [("stdout", "2")]
    assert ("OMP_NUM_THREADS differs" in caplog.text) == (way == "forked")


def test_a_variable_that_is_not_there_is_a_difference_too(
    way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.delenv("OMP_NUM_THREADS")
    with caplog.at_level("INFO"):
        process = child("import os; print('OMP_NUM_THREADS' in os.environ)", sink=(lines := Lines()), by_itself=True)
    assert process.wait() == 0 and lines == [("stdout", "False")]
    assert ("OMP_NUM_THREADS differs" in caplog.text) == (way == "forked")


def test_what_python_runs_at_a_start_is_run(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['CUSTOMISED'] = 'yes'")
    with caplog.at_level("INFO"):
        process = child("import os; print(os.environ.get('CUSTOMISED'))", sink=(lines := Lines()), by_itself=True)
    assert process.wait() == 0 and lines == [("stdout", "yes")]
    assert ("has a sitecustomize" in caplog.text) == (way == "forked")


def test_a_child_has_the_limits_of_who_started_it(tmp_path: Path):
    """Not those of the zygote, which never had them."""
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import os, resource, sys\nfrom pathlib import Path\nfrom autoglm_ops.cluster.process import ChildProcess\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nos.umask(0o027)\n"
        "c = ChildProcess([sys.executable, '-m', 'body'], cwd=Path('.'), environment=os.environ, sink=lambda s, l: print(l.decode()))\n"
        "sys.exit(c.wait())\n"
    )
    (tmp_path / "body.py").write_text(
        "import os, resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[1], len(os.sched_getaffinity(0)), os.umask(0))"
    )
    said = subprocess.run([sys.executable, str(parent)], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["300", "1", str(0o027)]


def test_a_child_with_little_memory_starts_by_itself(way: str):
    process = ChildProcess(
        [sys.executable, "-c", "pass"], cwd=Path.cwd(), environment=os.environ, sink=Lines(), limits=Limits(memory=1 << 30)
    )
    assert not process.forked and process.wait() == 0


def test_an_address_that_leads_nowhere_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for address in (tmp_path / "none", tmp_path / ("x" * 120)):
        monkeypatch.setenv(ADDRESS, str(address))
        assert child("pass", by_itself=True).wait() == 0


def test_no_zygote_where_its_interpreter_is_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with zygote_of(tmp_path / "log", [], python="/no/such/python") as variables:
        assert variables == {}
    assert "imports everything anew" in caplog.text


def test_a_killed_owner_leaves_nothing_of_its_zygote(tmp_path: Path):
    place = tmp_path / "tmp"
    place.mkdir()
    code = (
        "import sys, time; from pathlib import Path; from autoglm_ops.cluster.forked import zygote_of\n"
        f"with zygote_of(Path({str(tmp_path / 'log')!r}), ['json']): time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(place)})
    limit = time.monotonic() + 30
    while not list(place.glob("*/zygote")):
        assert time.monotonic() < limit and owner.poll() is None
        time.sleep(0.02)
    owner.kill()
    owner.wait()
    while list(place.iterdir()):
        assert time.monotonic() < limit, list(place.rglob("*"))
        time.sleep(0.02)


def test_when_the_zygote_dies_its_children_end_and_the_next_starts_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with zygote_of(tmp_path / "log", []) as variables:
        monkeypatch.setenv(ADDRESS, variables[ADDRESS])
        ready(variables)
        process = child("import time; time.sleep(60)")
    assert process.wait(5) == 128 + signal.SIGTERM
    assert left(process) == []
    monkeypatch.delenv(ADDRESS)
    assert child("pass").wait() == 0


@pytest.mark.parametrize("sent", [b"", b"\xff\xff\xff\xff", b"\x00\x00\x00\x02{}", b"\x00\x00\x00\x02[]", b"\x00\x00\x00\x01{"])
def test_a_zygote_outlives_whoever_talks_nonsense(warm: dict[str, str], sent: bytes, monkeypatch: pytest.MonkeyPatch):
    null = os.open(os.devnull, os.O_RDWR)
    for handles in ([], [null], [null] * 3):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(warm[ADDRESS])
            if sent:
                socket.send_fds(connection, [sent], handles)
    os.close(null)
    monkeypatch.setenv(ADDRESS, warm[ADDRESS])
    assert child("pass").wait() == 0


def test_broken_requests_leave_no_handle_open(warm: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    null = os.open(os.devnull, os.O_RDWR)
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(warm[ADDRESS])
            socket.send_fds(connection, [b"\x00\x00\x00\x09{"], [null] * 3)
    os.close(null)
    monkeypatch.setenv(ADDRESS, warm[ADDRESS])
    assert told()["handles"] == [0, 1, 2]


def test_a_relative_folder_is_the_askers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "body.py").write_text("import os; print(os.getcwd())")
    lines = Lines()
    process = ChildProcess([sys.executable, "-m", "body"], cwd=Path("here"), environment=os.environ, sink=lines)
    assert process.wait() == 0 and lines == [("stdout", str(tmp_path / "here"))]


def test_only_this_user_may_ask(warm: dict[str, str]):
    assert Path(warm[ADDRESS]).parent.stat().st_mode & 0o077 == 0
