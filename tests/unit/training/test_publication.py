"""Parts of several ranks become one checkpoint, or none: what is missing, late, altered, extra or another run's is never continued from."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autoglm_ops.training import checkpoint, kept, publication
from autoglm_ops.training.callbacks.checkpoints import Checkpoints
from autoglm_ops.training.callbacks.pace import Pace
from autoglm_ops.training.checkpoint import Kept, newest_of_all
from autoglm_ops.training.image import Host
from autoglm_ops.training.progress import Progress, Weights
from autoglm_ops.training.publication import Site


def site(root: Path, rank: int, ranks: int = 2, **update: Any) -> Site:
    return Site(
        **{"root": root, "key": "run", "rank": rank, "ranks": ranks, "layout": "ZeRO 1, float32", "attempt": "one"} | update
    )


def state(step: int, rank: int) -> Weights:
    """A parameter of eight elements, half on each rank."""
    whole = torch.arange(8, dtype=torch.float32) + step
    return {f"master@{4 * rank}:w": whole[4 * rank : 4 * rank + 4], f"step@{4 * rank}:w": torch.tensor(float(step))}


def part(one: Site, step: int, running: float = 0.0) -> None:
    progress = Progress(step=step, running=running, since=1, best={"w": torch.ones(2)})
    live = state(step, one.rank) | publication.running(progress)
    publication.write_part(one, publication.take(one, progress, live, Host()))


def saved(root: Path, step: int) -> Path:
    for rank in (1, 0):
        part(site(root, rank), step, running=float(rank))
    return publication.publish(site(root, 0), step)


def together(root: Path, ranks: int = 2, **update: Any) -> list[Kept | None]:
    """`newest_of_all` on every rank at once, with a sum over threads."""
    barrier, values = threading.Barrier(ranks), [np.zeros(ranks)] * ranks
    found: list[Kept | None] = [None] * ranks

    def add_of(rank: int) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
        def add(mine: NDArray[np.float64]) -> NDArray[np.float64]:
            values[rank] = mine
            barrier.wait(5)
            total = np.sum(values, axis=0)
            barrier.wait(5)
            return total

        return add

    def look(rank: int) -> None:
        found[rank] = newest_of_all(site(root, rank, ranks, **update), add_of(rank))

    threads = [threading.Thread(target=look, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def steps(found: list[Kept | None]) -> list[int]:
    return [one.progress.step if one else 0 for one in found]


def test_each_rank_reads_its_own_part_back(tmp_path: Path) -> None:
    folder = saved(tmp_path, 7)
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors", "manifest.json", "progress.json", "rank-00000.safetensors", "rank-00001.safetensors",
    ]  # fmt: skip
    found = together(tmp_path)
    for rank, one in enumerate(found):
        assert one is not None
        assert one.state.keys() == state(7, rank).keys()
        assert all(torch.equal(one.state[name], tensor) for name, tensor in state(7, rank).items())
        assert (one.progress.running, one.progress.since) == (float(rank), 1)
        assert torch.equal(one.progress.best["w"], torch.ones(2))


def test_another_number_of_ranks_reads_all_parts(tmp_path: Path) -> None:
    saved(tmp_path, 7)
    (one,) = together(tmp_path, ranks=1)
    assert one is not None
    assert one.state.keys() == state(7, 0).keys() | state(7, 1).keys()
    assert (one.progress.running, one.layout) == (0.5, "ZeRO 1, float32 on 2 ranks")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "rank-00001.safetensors").unlink(),
        lambda folder: (folder / "extra.txt").write_text("x"),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "progress.json").write_text("{}"),
        lambda folder: flip(folder / "rank-00001.safetensors"),
        lambda folder: flip(folder / "rank-00000.safetensors"),
        lambda folder: flip(folder / "best.safetensors"),
        lambda folder: link(folder / "rank-00001.safetensors"),
    ],
    ids=[
        "missing",
        "extra",
        "no manifest",
        "torn manifest",
        "altered progress",
        "altered 1",
        "altered 0",
        "altered best",
        "link",
    ],
)
def test_a_part_that_one_rank_cannot_read_is_taken_by_none(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    saved(tmp_path, 3)
    spoil(saved(tmp_path, 7))
    assert steps(together(tmp_path)) == [3, 3]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def link(path: Path) -> None:
    shutil.move(path, path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def test_a_checkpoint_of_another_model_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved(tmp_path, 7)
    with caplog.at_level(logging.WARNING):
        assert steps(together(tmp_path, key="another")) == [0, 0]
    assert "belongs to another model or recipe" in caplog.text


def test_without_every_part_nothing_is_published_and_nothing_is_left(tmp_path: Path) -> None:
    """Rank 1 is slow, and rank 0 gives up: the one before stays (threats F14)."""
    saved(tmp_path, 3)
    part(site(tmp_path, 0), 7)
    with pytest.raises(OSError, match="the part of rank 1 did not come"):
        publication.publish(site(tmp_path, 0), 7, patience=0.05)
    publication.abandon(site(tmp_path, 0), 7)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003"]
    assert steps(together(tmp_path)) == [3, 3]


def test_a_part_of_an_attempt_that_died_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    part(site(tmp_path, 1, attempt="died"), 7)
    part(site(tmp_path, 0), 7)
    with pytest.raises(OSError, match="the part of rank 1 did not come"):
        publication.publish(site(tmp_path, 0), 7, patience=0.05)
    assert not list(tmp_path.glob("*died*"))


def test_a_rank_that_could_not_keep_its_part_says_so(tmp_path: Path) -> None:
    part(site(tmp_path, 0), 7)
    publication.leave_note(site(tmp_path, 1), 7, {"error": "[Errno 28] No space left on device"})
    with pytest.raises(OSError, match=r"rank 1 did not keep its part: .*No space left"):
        publication.publish(site(tmp_path, 0), 7)


def test_nothing_that_is_no_number_is_kept(tmp_path: Path) -> None:
    one = site(tmp_path, 0, ranks=1)
    progress = Progress(step=1)
    image = publication.take(one, progress, {"master@0:w": torch.tensor([1.0, float("nan")])}, Host())
    with pytest.raises(ValueError, match="master@0:w holds NaN or infinite values"):
        publication.write_part(one, image)


class Slow:
    """An engine whose state is read while it changes."""

    rank, ranks, accumulation, resumable = 0, 1, 1, True

    def __init__(self) -> None:
        self.weight = torch.zeros(1 << 20)

    def live(self) -> Weights:
        return {"master@0:w": self.weight}


def test_what_is_written_is_what_was_there_when_it_was_taken(tmp_path: Path) -> None:
    engine = Slow()
    callback = Checkpoints(tmp_path, "run", engine, pace=Pace(every=1))  # type: ignore[arg-type]
    for step in range(1, 6):
        engine.weight.fill_(step)
        callback.on_step(Progress(step=step, steps=9))
        engine.weight.fill_(-1)
        time.sleep(0.02)
    callback.on_end(Progress())
    assert callback.taken + callback.left_out == 5
    assert callback.failed == 0
    found = checkpoint.newest(tmp_path, "run")
    assert found is not None
    assert set(found[2]["master@0:w"].tolist()) == {float(found[0].step)}


def test_a_checkpoint_is_due_after_steps_but_not_where_an_evaluation_follows(tmp_path: Path) -> None:
    callback = Checkpoints(tmp_path, "run", Slow(), pace=Pace(every=2, marks=(4,)))  # type: ignore[arg-type]
    for step in range(1, 8):
        callback.on_step(Progress(step=step, steps=7))
        callback.on_end(Progress())
    assert callback.taken == 2  # 2 and 6: 4 is an evaluation's, and nothing is continued from the end


def test_one_set_aside_is_not_found_again(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    saved(tmp_path, 7)
    kept.set_aside(tmp_path, 7)
    assert steps(together(tmp_path)) == [3, 3]
    saved(tmp_path, 7)
    kept.set_aside(tmp_path, 7)
    assert sorted(path.name for path in tmp_path.glob("aside-*")) == ["aside-000000007-1", "aside-000000007-2"]
    assert json.loads((tmp_path / "aside-000000007-1" / "progress.json").read_text())["step"] == 7
