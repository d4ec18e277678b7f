"""Commands forked from a `zygote`: the asking side, with the part of `subprocess.Popen` that `ChildProcess` uses."""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoglm_ops.cluster import zygote
from autoglm_ops.cluster.zygote import LEAST_MEMORY as LEAST_MEMORY
from autoglm_ops.errors import AutoGLMError

logger = logging.getLogger(__name__)

ADDRESS = "AUTOGLM_ZYGOTE"
"""Environment variable: the socket of the zygote that commands may be forked from."""
MODULES = (
    "typer", "rich.table", "pydantic_settings", "ruamel.yaml", "dvc.repo", "mlflow", "great_expectations", "optuna", "sklearn.linear_model", "scipy.stats",
    "sklearn.feature_extraction.text", "matplotlib.pyplot", "torch", "transformers.models.glm.modeling_glm", "safetensors.torch",
)  # fmt: skip
"""What most commands import, and most of their start."""
HANDSHAKE = 30.0
"""Seconds a zygote has for an answer; one that was stopped gives none."""
ROOM = 1024
"""Characters for a command's words and for its marks, which are written over the zygote's own."""


class Forked:
    """A running command. `poll`, `wait` and `returncode` as Popen has them: -N for death by signal N."""

    def __init__(self, connection: socket.socket, pid: int, outputs: tuple[int, int]) -> None:
        self._connection, self.pid = connection, pid
        self.stdout, self.stderr = (os.fdopen(handle, "rb") for handle in outputs)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The return code; None while it runs."""
        return self._hear(0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        code = self._hear(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("a forked command", timeout or 0)
        return code

    def _hear(self, timeout: float | None) -> int | None:
        if self.returncode is None and _readable(self._connection, timeout):
            said = _line(self._connection)
            # Nothing said: the zygote is gone, and its commands get SIGTERM from the kernel.
            self.returncode = said["code"] if said else -signal.SIGTERM
            self._connection.close()
        return self.returncode


def _readable(connection: socket.socket, timeout: float | None) -> bool:
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(None if timeout is None else timeout * 1000))


def start(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Forked | None:
    """Fork `command` from the zygote that `environment` names. None when there is none yet, or it cannot: then start it by itself."""
    address = environment.get(ADDRESS)
    if address is None or len(command) < 3 or command[1] != "-m" or not cwd.is_dir():
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(HANDSHAKE)
    try:
        connection.connect(address)
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, ConnectionRefusedError)):  # it is importing still, or gone
            logger.info("%s starts by itself: %s", " ".join(command[2:5]), error)
        connection.close()
        return None
    asked = json.dumps({"command": list(command), "cwd": str(cwd.resolve()), "environment": dict(environment)}).encode()
    (read_out, out), (read_err, err) = os.pipe(), os.pipe()
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        socket.send_fds(connection, [zygote.HEADER.pack(len(asked))], [null, out, err])
        connection.sendall(asked)
        said = _line(connection) or {}
    except OSError as error:
        said = {"refused": str(error)}
    finally:
        for handle in (null, out, err):
            os.close(handle)
    if "pid" in said:
        connection.settimeout(None)
        return Forked(connection, said["pid"], (read_out, read_err))
    logger.info("%s starts by itself: %s", " ".join(command[2:5]), said.get("refused", "the zygote forked nothing"))
    connection.close()
    for handle in (read_out, read_err):
        os.close(handle)
    return None


@contextmanager
def zygote_of(log: Path, modules: Sequence[str] = MODULES, python: str = sys.executable) -> Iterator[dict[str, str]]:
    """A zygote, and the variables that let a command be forked from it, in the environment of whoever starts commands and of all below.

    Linux only; elsewhere there is none, and no variable.

    `python` is the interpreter of the commands. It imports in the background; commands that come before it is ready start by themselves. Whoever may open its folder may have
    commands run as this user: it is this user's alone. What it says goes to the file `log`.
    """
    if sys.platform != "linux":
        yield {}
        return
    folder = tempfile.mkdtemp(prefix="autoglm-")
    try:
        address = f"{folder}/zygote"
        process = _open(address, log, modules, python)
        try:
            yield {ADDRESS: address} if process is not None else {}
        finally:
            if process is not None:
                process.terminate()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open(address: str, log: Path, modules: Sequence[str], python: str) -> subprocess.Popen[bytes] | None:
    marks = f"{os.environ.get(zygote.MARKS, '')} ".ljust(ROOM)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", zygote.MARKS: marks}
    environment.pop("PYTHONPATH", None)
    command = [python, str(Path(zygote.__file__)), address, ",".join(modules), str(os.getpid()), " " * ROOM]
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as sink:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
            )
    except OSError as error:  # whoever starts commands will say what is wrong with `python`
        logger.warning("no zygote, so every command imports everything anew: %s", error)
        return None


def _line(connection: socket.socket) -> dict[str, Any] | None:
    """One line of JSON; None when the other side is gone. Raises AutoGLMError when it is none."""
    said = bytearray()
    while not said.endswith(b"\n"):
        try:
            read = connection.recv(1)
        except ConnectionError:
            read = b""
        if not read:
            return None
        said += read
    answer = json.loads(said)
    if not isinstance(answer, dict):
        raise AutoGLMError(f"the zygote said {said.decode(errors='replace')!r}")
    return answer
