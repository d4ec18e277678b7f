"""What goes wrong in `autoglm demo`, on which day: noise in the labels, a reporter that lies, a server that is slow."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from autoglm_ops.errors import UsageError

KINDS = ("label-noise", "hostile-reporter", "latency")
REPORTERS = 10
NOISE = 0.15
"""Share of a day's labels that are wrong when there is noise, whoever reports them."""
STOPPED, RUNNING = 1.5, 0.1
"""Seconds a slowed server stands still and runs, by turns."""


def schedule(text: str) -> dict[int, str]:
    """`6:label-noise,8:hostile-reporter` as day -> fault; `none` is none. Raises UsageError."""
    found: dict[int, str] = {}
    for item in text.split(",") if text != "none" else ():
        day, _, kind = item.strip().partition(":")
        if not day.isdigit() or kind not in KINDS:
            raise UsageError(f"{item!r} is no fault; write DAY:KIND, KIND one of {', '.join(KINDS)}, or none")
        found[int(day)] = kind
    return found


def reported(labels: Sequence[str], day: int, fault: str | None, seed: int) -> list[tuple[str, str]]:
    """(label, reporter) of each of the day's answers, dealt to REPORTERS readers; what is wrong with them is drawn by `seed` and day."""
    names, draw = sorted(set(labels)), random.Random(f"{seed} {day}")
    told = []
    for place, label in enumerate(labels):
        reporter = place % REPORTERS
        lies = fault == "hostile-reporter" and reporter == 3
        errs = fault == "label-noise" and draw.random() < NOISE
        others = [name for name in names if name != label]
        told.append((draw.choice(others) if (lies or errs) and others else label, f"reader-{reporter}"))
    return told


@contextmanager
def slowed(pid: int, *, really: bool) -> Iterator[None]:
    """The process `pid` stands still most of the time, while inside. It always runs again afterwards."""
    if not really:
        yield
        return
    done = threading.Event()

    def pester() -> None:
        try:
            while not done.is_set():
                os.kill(pid, signal.SIGSTOP)
                done.wait(STOPPED)
                os.kill(pid, signal.SIGCONT)
                done.wait(RUNNING)
        finally:
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=pester, name="slowed", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
