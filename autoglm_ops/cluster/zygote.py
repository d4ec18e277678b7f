"""A process that has imported what commands import, and forks them: most of a short stage's time is imports otherwise.

(Measured: a cached stage takes 1.3 s of which 1.0 s is imports; mlflow takes 1.4 s, torch and transformers 4 s.) The name is Android's,
for the same thing. It is run as a file, `python zygote.py SOCKET MODULE,… PARENT`, and imports nothing of this project: each command imports the
project from its own PYTHONPATH, so a workspace's own code runs, as it would in a process of its own. `forked` is the other side.

A fork is safe before threads exist, so libraries that start some are kept out. What is read from the environment while a process or a
library starts cannot be changed after it: a command whose environment differs there is refused, and starts by itself.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import resource
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

MARKS = "AUTOGLM_JOB_MARKS"  # process.MARK; this file imports nothing of ours
AT_START = (
    "LD_", "PYTHON", "OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "MALLOC_", "CUDA_", "TORCH", "HF_", "TRANSFORMERS_", "LANG", "LC_", "TZ",
    "MPL", "DVC_", "GX_", "MLFLOW_DISABLE",
)  # fmt: skip
"""Variables (by how their names begin) that are read while a process or a library starts."""
AT_START_MODULES = ("sitecustomize", "usercustomize")
"""Modules of PYTHONPATH that Python itself runs at a start (instrumentation, coverage)."""
PER_COMMAND = {"PYTHONPATH"}
"""Of those, what is given to every command anew."""
THREADED = ("polars",)
"""They start threads while they are imported, and others import them when they can: hidden while these are imported here."""
HARMLESS = {"jemalloc_bg_thd"}
"""Threads whose library makes them anew after a fork (jemalloc's own handlers)."""
HEADER = struct.Struct("!I")
PATIENCE = 5.0
LEAST_MEMORY = 2 << 30
"""Bytes a command must be allowed to hold (RLIMIT_DATA): what is imported counts as its own, 0.6 GiB."""
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15  # linux/prctl.h
_ARG_START, _ENV_START = 48, 50  # proc_pid_stat(5), counted from 1


def main(address: str, modules: list[str], parent: int) -> None:
    """Import `modules` (those there are), listen at `address`, and fork until `parent` dies. In a forked command it runs that, and returns."""
    _clean_at_end(address)
    _die_with(parent)
    started = dict(os.environ)
    for name in THREADED:
        sys.modules[name] = None  # type: ignore[assignment]
    for name in modules:
        with suppress(ImportError):
            import_module(name)
    for name in THREADED:
        del sys.modules[name]
    strangers = _threads() - HARMLESS
    if strangers:
        sys.exit(
            f"zygote: {', '.join(sorted(strangers))} run beside the main thread, so nothing can be forked; commands start by themselves"
        )
    _overwrite(_ENV_START, "environ", f"{MARKS}=".encode(), started.get(MARKS, "").encode())
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # what is imported stays where it is: commands share its pages
    request = _Zygote(address, started).serve()
    request["environment"] = {**_added(started), **request["environment"]}
    _run(_become(request))


class _Zygote:
    """Connections, one a command: they close when the one who asked is gone, and the command is then told to end."""

    def __init__(self, address: str, started: dict[str, str]) -> None:
        self._started = started
        self._selector = selectors.DefaultSelector()
        self._awake, wake = socket.socketpair()
        for end in (self._awake, wake):
            end.setblocking(False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake.fileno())
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._commands: dict[int, socket.socket] = {}
        self._selector.register(self._awake, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._listener.bind(address)
        self._listener.listen(64)

    def serve(self) -> dict[str, Any]:
        """Returns in a forked command only, with what it was asked to be; the zygote itself stays here until a signal ends it."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._awake:
                    with suppress(BlockingIOError):
                        self._awake.recv(4096)
                elif key.fileobj is self._listener:
                    request = self._accept()
                    if request is not None:
                        return request
                else:
                    self._left(key.fileobj)
            self._reap()

    def _accept(self) -> dict[str, Any] | None:
        """Answer the next asker. In the forked command it returns the request, which has the connection that waits for `pid`."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # gone again, or no handle is free
            return None
        connection.settimeout(PATIENCE)
        handles: list[int] = []
        pid = -1
        try:
            request = _receive(connection, handles)
            refused = _unlike(request, self._started)
            if not refused:
                pid = os.fork()
        except (OSError, EOFError, LookupError, TypeError, ValueError, AttributeError) as error:
            refused = f"{type(error).__name__}: {error}"
        if pid == 0:
            self._shed()
            for number, handle in enumerate(handles):
                os.dup2(handle, number)
        for handle in handles:
            os.close(handle)
        if pid == 0:
            return {**request, "connection": connection}
        if refused:
            _say(connection, refused=refused)
            connection.close()
            return None
        self._commands[pid] = connection
        self._selector.register(connection, selectors.EVENT_READ)
        return None

    def _left(self, connection: Any) -> None:
        """The asker closed its end, or died: the command gets SIGTERM, as the kernel sends it to a child of ours."""
        self._selector.unregister(connection)
        connection.close()
        for pid in [pid for pid, known in self._commands.items() if known is connection]:
            os.kill(pid, signal.SIGTERM)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            connection = self._commands.pop(pid, None)
            if connection is None or connection.fileno() < 0:
                continue
            self._selector.unregister(connection)
            _say(connection, code=os.waitstatus_to_exitcode(status))
            connection.close()

    def _shed(self) -> None:
        """In a command: nothing of the zygote stays open, so that everybody's end is seen by everybody."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._selector.close()
        for end in (self._awake, self._wake, self._listener, *self._commands.values()):
            end.close()


def _say(connection: socket.socket, **what: Any) -> None:
    """To an asker, who may be gone: `_left` hears of that."""
    with suppress(OSError):
        connection.sendall(json.dumps(what).encode() + b"\n")


def _receive(connection: socket.socket, handles: list[int]) -> dict[str, Any]:
    """{"command", "cwd", "environment"} as JSON after its length, and three handles that came with the length, put into `handles`."""
    head, received, _, _ = socket.recv_fds(connection, HEADER.size, 3)
    handles += received
    if len(head) < HEADER.size or len(handles) < 3:
        raise EOFError("the request broke off")
    [size] = HEADER.unpack(head)
    body = bytearray()
    while len(body) < size:
        read = connection.recv(min(size - len(body), 1 << 16))
        if not read:
            raise EOFError("the request broke off")
        body += read
    [asker, *_] = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return {**json.loads(body), "asker": asker, "zygote": os.getpid()}


def _unlike(request: dict[str, Any], started: dict[str, str]) -> str:
    """Why a command cannot be forked from a process that began with the environment `started`; empty when it can."""
    python, flag = request["command"][:2]
    if python != sys.executable or flag != "-m":
        return f"it is not {sys.executable} -m …"
    # What libraries added here was given to the commands forked before, and by them to those that they ask for.
    theirs, ours, added = _at_start(request["environment"]), _at_start(started), _added(started)
    for name in sorted(theirs.keys() | ours.keys()):
        value = theirs.get(name)
        if value != ours.get(name) and (name not in added or value != added[name]):
            return f"{name} differs, and it is read while a process starts"
    for folder in filter(None, request["environment"].get("PYTHONPATH", "").split(os.pathsep)):
        for name in AT_START_MODULES:
            if (Path(folder) / f"{name}.py").exists() or (Path(folder) / name).is_dir():
                return f"{folder} has a {name}, which is run while a process starts"
    if len(request["environment"].get(MARKS, "")) > len(os.environ.get(MARKS, "")):
        return "it stands inside too many jobs"
    if 0 <= resource.prlimit(request["asker"], resource.RLIMIT_DATA)[0] < LEAST_MEMORY:
        return "it may have less memory than what is imported takes"
    return ""


def _added(started: dict[str, str]) -> dict[str, str]:
    """What libraries put into the environment while they were imported."""
    return {name: value for name, value in os.environ.items() if name not in started}


def _at_start(environment: Any) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(AT_START) and name not in PER_COMMAND}


def _become(request: dict[str, Any]) -> str:
    """Make this process what `python -m MODULE …` would be, and return MODULE."""
    os.setsid()
    _die_with(request["zygote"])
    ctypes.CDLL(None).prctl(_PR_SET_NAME, b"autoglm")
    _limit_like(request["asker"])
    environment, command = request["environment"], request["command"]
    _overwrite(_ENV_START, "environ", f"{MARKS}=".encode(), environment.get(MARKS, "").encode())
    _overwrite(_ARG_START, "cmdline", b"", b"\0".join(word.encode() for word in command) + b"\0")
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.path[:0] = [request["cwd"], *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    invalidate_caches()
    sys.argv[:] = ["", *command[3:]]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()  # its global generator; the one of `random` is seeded anew by itself
    # Said only now that it leads its session and bears its marks: it can be found and ended from here on.
    _say(request["connection"], pid=os.getpid())
    request["connection"].close()
    return str(command[2])


def _limit_like(asker: int) -> None:
    """What a child inherits from whoever starts it. Without rights nothing can be raised, nor has to be: the zygote is the asker's elder."""
    os.sched_setaffinity(0, os.sched_getaffinity(asker))
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            with suppress(OSError, ValueError):
                resource.setrlimit(getattr(resource, name), resource.prlimit(asker, getattr(resource, name)))
    for line in Path(f"/proc/{asker}/status").read_text().splitlines():
        if line.startswith("Umask:"):
            os.umask(int(line.split()[1], 8))


def _run(module: str) -> None:
    """Run it and leave, as multiprocessing's forks do: threads, exit handlers and streams are seen to, the rest is the kernel's.

    Python's own end, which takes every imported module apart, took half a second. An error goes there all the same: Python prints it, and
    knows what else an interrupt or an exit hook asks for.
    """
    code: Any = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        code = leaving.code
    if code is not None and not isinstance(code, int):
        sys.stderr.write(f"{code}\n")
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()  # lost output is an error too, and no success
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


def _clean_at_end(address: str) -> None:
    """At SIGTERM, which also comes when the parent was killed and cannot clean up itself: no socket and no folder of it stay behind."""
    zygote = os.getpid()

    def leave(number: int, frame: Any) -> None:
        if os.getpid() == zygote:  # a command that is just being forked has this handler, too
            with suppress(OSError):
                Path(address).unlink()
            with suppress(OSError):
                Path(address).parent.rmdir()
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGTERM when the parent dies, and leave at once if it already has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


def _overwrite(field: int, name: str, after: bytes, text: bytes) -> None:
    """Put `text` where others read this process's command line or environment: over as much as there is room for, blanks behind.

    Raises OSError where a process may not write its own memory; tried once before anything is forked.
    """
    there = Path(f"/proc/self/{name}").read_bytes()
    start = there.find(after) + len(after)
    end = there.find(b"\0", start) if after else len(there) - 1
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    address = int(stat[field - 3]) + start  # the first two fields are before the bracket
    with open("/proc/self/mem", "r+b", buffering=0) as memory:  # noqa: PTH123
        memory.seek(address)
        memory.write(text[: end - start].ljust(end - start))


def _threads() -> set[str]:
    """The names of all threads but the main one."""
    mine = str(os.getpid())
    return {(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir() if task.name != mine}


if __name__ == "__main__":
    del sys.path[0]  # this file's folder: its neighbours are no top-level modules
    main(sys.argv[1], [name for name in sys.argv[2].split(",") if name], int(sys.argv[3]))
