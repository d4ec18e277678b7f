"""Looks of a study that are taken by processes of their own: who works on which, what came of it, and who died over it.

One folder, beside the study's database, which no worker opens. A look has up to five files: `.lock`, which the kernel lets go when its
holder dies; `.starts`, a line for each time somebody began; `.beat`, touched while somebody works; `.json`, what came of it; and
`.refused`, why nobody could begin. A worker
that was killed before its first beat has a start at most, and no answer: the look is simply asked for again.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm_ops.contracts.record import Record, write_text
from autoglm_ops.errors import BudgetSpent, Refused, Tampered, TryAgain
from autoglm_ops.tuning.rounds import Look

if TYPE_CHECKING:
    from autoglm_ops.tuning.study import Trainer

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
GRACE_SECONDS = 60.0
"""Who holds a look and has not beaten for so long hangs, and is ended."""
POLL_SECONDS = 0.1
STOPPED = "stopped"
"""In the folder: the seconds that were spent when the hard stop was hit."""


class Told(Record):
    """What became of a look: a score, or why there is none. `measured` differs from run to run; its seconds count for the hard stop,
    and nothing else is decided by it."""

    look: Look
    score: float | None = None
    refused: str = ""
    measured: dict[str, float] = {}


class Desk:
    """The looks below `folder`. `grace`: seconds without a beat after which a holder hangs."""

    def __init__(self, folder: Path, grace: float = GRACE_SECONDS) -> None:
        self._folder, self._grace = folder, grace

    def told(self, look: Look) -> Told | None:
        """What came of this very look, if it is known. A torn answer is none."""
        path = self._path(look, "json")
        try:
            told = Told.read(path) if path.exists() else None
        except Tampered as error:
            log.warning("an answer is left out and asked for again: %s", error)
            return None
        return told if told is not None and told.look == look else None

    def tell(self, told: Told) -> None:
        """Keep an answer, whole or not at all."""
        told.write(self._path(told.look, "json"))

    def measured(self) -> dict[str, dict[str, float]]:
        """What answers said of themselves, by trial; seconds are those of all its looks."""
        found: dict[str, dict[str, float]] = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                told = Told.read(path)
            except Tampered:
                continue
            one = found.setdefault(str(told.look.number), {})
            seconds = round(one.get("seconds", 0.0) + told.measured.get("seconds", 0.0), 3)
            one.update({**told.measured, "seconds": seconds})
        return found

    def spent(self) -> float:
        """Seconds that answers say they took, of all trials together, since the hard stop was hit last."""
        return max(0.0, self._seconds() - self._before())

    @contextmanager
    def metered(self) -> Iterator[None]:
        """At the hard stop every answer stays, and what was spent is no part of the next attempt's budget: as where one process trains."""
        try:
            yield
        except BudgetSpent:
            if seconds := self._seconds():
                write_text(self._folder / STOPPED, f"{seconds:.3f}\n")
            raise

    def _seconds(self) -> float:
        return sum(one["seconds"] for one in self.measured().values())

    def _before(self) -> float:
        path = self._folder / STOPPED
        return float(path.read_text(encoding="utf-8")) if path.exists() else 0.0

    @contextmanager
    def refusing(self, look: Look, why: str) -> Iterator[tuple[str, ...]]:
        """Keep that a look could not be taken (a quota, an image), which is no answer. Yields what stands in the way of any look that
        has none; one process at a time is in the block."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".refusing").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            Told(look=look, refused=why).write(self._path(look, "refused"))
            known = [Told.read(path) for path in sorted(self._folder.glob("*.refused"))]
            yield tuple(told.refused for told in known if self.told(told.look) is None)

    def again(self, look: Look) -> None:
        """It is tried once more, and may not be refused any longer."""
        self._path(look, "refused").unlink(missing_ok=True)

    def starts(self, look: Look) -> int:
        """How often somebody began with it."""
        path = self._path(look, "starts")
        return len(path.read_bytes().splitlines()) if path.exists() else 0

    def began(self, look: Look) -> None:
        """Count that somebody began with it."""
        with self._path(look, "starts").open("a") as starts:
            starts.write(f"{os.getpid()}\n")

    @contextmanager
    def working(self, look: Look, *, here: bool = True) -> Iterator[None]:
        """Be the only one who works on this look: waits for another one, and ends one that hangs. `here`: False only watches a job, which
        may wait for its place and never begin."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._path(look, "lock").open("a") as lock:
            self._acquire(look, lock.fileno())
            if here:
                self.began(look)
            with _beating(self._path(look, "beat")):
                yield

    def _acquire(self, look: Look, lock: int) -> None:
        path = self._path(look, "beat")
        asked = time.monotonic()
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                _end_hanging(path, asked, self._grace)
                time.sleep(POLL_SECONDS)

    def _path(self, look: Look, kind: str) -> Path:
        return self._folder / f"{look.number:05d}-{look.to:07d}-{look.fingerprint()[:12]}.{kind}"


class Attended:
    """A `Trainer` that takes what is told already, gives up what nobody survived, and trains the rest, here.

    restarts: how often a look may be begun again after somebody died over it.
    """

    def __init__(self, desk: Desk, trainer: Trainer, restarts: int) -> None:
        self._desk, self._trainer, self._restarts = desk, trainer, restarts

    def __call__(self, number: int, choices: dict[str, Any], since: int, to: int) -> float:
        look = Look(number=number, choices=choices, since=since, to=to)
        told = settled(self._desk, look, self._restarts)
        if told is None:
            with self._desk.working(look):
                return self._trainer(number, choices, since, to)
        if told.score is None:
            raise Refused(told.refused)
        return told.score


def settled(desk: Desk, look: Look, restarts: int) -> Told | None:
    """What is known of a look, None while it is to be taken. Nobody survived it too often: that is an answer, too."""
    told, starts = desk.told(look), desk.starts(look)
    if told is not None or starts <= restarts:
        return told
    why = (
        f"dead: {starts} processes began with trial {look.number} at step {look.since} and none lived to say a score; look for lack of "
        "memory, or raise recovery.restarts"
    )
    return Told(look=look, refused=why)


def answer(desk: Desk, look: Look, trainer: Trainer) -> Told:
    """Take a look and keep what came of it. Somebody else's answer is as good. Raises what the machine is to blame for."""
    with desk.working(look):
        told = desk.told(look)
        if told is not None:
            return told
        began = time.monotonic()
        try:
            score = trainer(look.number, dict(look.choices), look.since, look.to)
            more = getattr(trainer, "measured", {}).get(str(look.number), {})
            told = Told(look=look, score=score, measured={"seconds": round(time.monotonic() - began, 3), **more})
        except TryAgain:
            raise
        except Refused as error:
            told = Told(look=look, refused=str(error), measured={"seconds": round(time.monotonic() - began, 3)})
        desk.tell(told)
        return told


@contextmanager
def _beating(path: Path) -> Iterator[None]:
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_SECONDS):
            _touch(path)

    _touch(path)
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    """Say who works, and when on the clock that all processes of this boot share (threats F26)."""
    staged = path.with_suffix(".beating")
    try:
        staged.write_text(f"{os.getpid()} {time.monotonic()}", encoding="ascii")
        os.replace(staged, path)
    except OSError as error:
        log.warning("no beat could be written: %s", error)


def _end_hanging(path: Path, asked: float, grace: float) -> None:
    """Kill the holder of a look when it has not beaten since `grace` seconds, and we have waited for as long."""
    try:
        pid, at = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return
    now = time.monotonic()
    if now - max(float(at), asked) > grace and int(pid) != os.getpid():
        log.warning("process %s holds a look and has not beaten for %.0f s: it hangs, and is ended", pid, now - float(at))
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            return
