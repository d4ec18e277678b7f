"""A copy that several threads share: whole, in order, once each, by whoever comes; what goes wrong is raised where the copy is used."""

from __future__ import annotations

import threading

import pytest
import torch

from autoglm_ops.training.image import Host
from autoglm_ops.training.progress import Weights


def state(seed: float) -> Weights:
    return {f"w{place:02d}": torch.full((300,), seed + place) for place in range(40)}


def test_threads_that_help_make_one_whole_copy_and_the_memory_is_used_again() -> None:
    host, before = Host(), {}
    for turn in range(5):
        live = state(turn)
        copying = host.begin(live)
        helpers = [threading.Thread(target=copying.wait) for _ in range(3)]
        for helper in helpers:
            helper.start()
        copy = copying.whole()
        for helper in helpers:
            helper.join()
        assert [*copy] == [*live] and all(torch.equal(copy[name], live[name]) for name in live)
        places = {name: tensor.data_ptr() for name, tensor in copy.items()}
        assert turn == 0 or places == before
        before = places


def test_who_waits_copies_what_nobody_has_begun() -> None:
    live = state(1)
    copying = Host().begin(live)
    copying.wait()  # no thread ever comes
    for tensor in live.values():
        tensor.zero_()
    assert copying.whole()["w39"][0] == 40


def test_want_of_memory_is_raised_where_the_copy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("can't allocate memory")

    copying = Host().begin(state(1))
    monkeypatch.setattr(torch, "empty", refused)
    copying.wait()
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        copying.whole()


def test_nothing_to_copy_is_a_copy() -> None:
    assert Host().begin({}).whole() == {}
