"""A checkpoint by time: all ranks at the same steps, though their clocks differ; as often as asked, and no more than writing allows."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoglm_ops.training.callbacks.pace import Pace


class Ranks:
    """Engines that add up by meeting at a barrier, as a collective does."""

    def __init__(self, ranks: int) -> None:
        self.ranks = ranks
        self._meeting = threading.Barrier(ranks, timeout=10)
        self._values: dict[int, NDArray[np.float64]] = {}

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        self._values[threading.get_ident()] = values
        self._meeting.wait()
        total = np.sum([*self._values.values()], axis=0)
        self._meeting.wait()
        return np.asarray(total)


def due(engine: Any, pauses: list[float], writing: float, found: list[int], **rules: Any) -> None:
    pace = Pace(**rules)
    pace.begin(0)
    for step, pause in enumerate(pauses, 1):
        time.sleep(pause)
        if pace.due(engine, step, writing):
            pace.saved()
            found.append(step)


@pytest.mark.parametrize(("writing", "most"), [(0.0, 9), (0.1, 2)])
def test_ranks_whose_clocks_differ_save_at_the_same_steps_about_as_often_as_asked(writing: float, most: int) -> None:
    engine, found = Ranks(2), ([], [])
    uneven = [[0.001 + 0.03 * ((step + rank) % 2) for step in range(40)] for rank in range(2)]
    threads = [
        threading.Thread(target=due, args=(engine, uneven[rank], writing, found[rank]), kwargs={"seconds": 0.1})
        for rank in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert 1 <= len(found[0]) <= most


def test_a_step_longer_than_the_interval_is_saved_each_time() -> None:
    found: list[int] = []
    due(Ranks(1), [0.03] * 4, 0.0, found, seconds=0.01)
    assert found == [1, 2, 3, 4]


def test_steps_alone_ask_nobody_and_leave_evaluations_theirs() -> None:
    found: list[int] = []
    due(None, [0.0] * 12, 0.0, found, every=3, marks=(6,))
    assert found == [3, 9, 12]
