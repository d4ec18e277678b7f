"""Who works on a look: one at a time, freed by death, ended when it hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoglm_ops.errors import BudgetSpent, Refused
from autoglm_ops.stages.desk import Attended, Desk, Told, answer, settled
from autoglm_ops.tuning.rounds import Look

LOOK = Look(number=3, choices={"train.learning_rate": 1e-3}, since=0, to=10)
HOLD = (
    "import sys, time; from pathlib import Path; from autoglm_ops.stages.desk import Desk; from autoglm_ops.tuning.rounds import Look\n"
    "with Desk(Path(sys.argv[1])).working(Look.model_validate_json(sys.argv[2])):\n    print('held', flush=True); time.sleep(600)\n"
)


def holder(folder: Path) -> subprocess.Popen[str]:
    """Another process that works on the look."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), LOOK.model_dump_json()], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_an_answer_is_for_the_look_it_names_and_a_torn_one_is_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.told(LOOK) is None
    desk.tell(Told(look=LOOK, score=0.5))
    assert desk.told(LOOK) == Told(look=LOOK, score=0.5)
    assert desk.told(LOOK.model_copy(update={"choices": {"train.learning_rate": 2e-3}})) is None
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(path.read_bytes()[:-20])
    assert desk.told(LOOK) is None


def test_a_refusal_is_an_answer_and_a_death_is_none(tmp_path: Path) -> None:
    desk = Desk(tmp_path)

    def diverges(*asked: object) -> float:
        raise Refused("diverged: at step 3")

    told = answer(desk, LOOK, diverges)
    assert told.refused == "diverged: at step 3" and "seconds" in told.measured
    with pytest.raises(Refused, match="diverged"):
        Attended(desk, diverges, 3)(3, dict(LOOK.choices), 0, 10)
    assert desk.starts(LOOK) == 1


def test_why_nobody_could_begin_is_kept_until_somebody_can(tmp_path: Path) -> None:
    desk, other = Desk(tmp_path / "looks"), LOOK.model_copy(update={"number": 1})
    with desk.refusing(LOOK, "quota: q") as reasons:
        assert reasons == ("quota: q",)
    with desk.refusing(other, "image: i") as reasons:
        assert reasons == ("image: i", "quota: q"), "in the order of the trials"
    assert settled(desk, LOOK, 0) is None and desk.measured() == {}, "which is no answer"
    desk.tell(Told(look=LOOK, score=0.5))
    with desk.refusing(other, "image: j") as reasons:
        assert reasons == ("image: j",)
    desk.again(other)
    desk.again(other)
    with desk.refusing(LOOK.model_copy(update={"number": 2}), "k") as reasons:
        assert reasons == ("k",)


def test_the_hard_stop_keeps_answers_and_the_next_attempt_has_its_whole_budget(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "looks")
    assert desk.spent() == 0
    with pytest.raises(BudgetSpent), desk.metered():
        raise BudgetSpent("with nothing told")
    desk.tell(Told(look=LOOK, score=0.5, measured={"seconds": 30.0}))
    desk.tell(Told(look=LOOK.model_copy(update={"number": 4}), refused="diverged", measured={"seconds": 12.0}))
    assert desk.spent() == 42
    with pytest.raises(Refused), desk.metered():
        raise Refused("something else")
    assert desk.spent() == 42
    with pytest.raises(BudgetSpent), desk.metered():
        raise BudgetSpent("42 s")
    assert desk.spent() == 0 and desk.told(LOOK) is not None
    desk.tell(Told(look=LOOK.model_copy(update={"to": 20}), score=0.6, measured={"seconds": 5.0}))
    assert desk.spent() == 5


def test_a_killed_holder_frees_the_look_and_leaves_a_start(tmp_path: Path) -> None:
    child = holder(tmp_path)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    desk = Desk(tmp_path)
    with desk.working(LOOK):
        assert desk.starts(LOOK) == 2
    assert settled(desk, LOOK, 2) is None
    told = settled(desk, LOOK, 1)
    assert told is not None and told.refused.startswith("dead: 2 processes began with trial 3")


def test_a_holder_that_hangs_is_ended(tmp_path: Path) -> None:
    child = holder(tmp_path)
    child.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with Desk(tmp_path, grace=1.5).working(LOOK):
        assert time.monotonic() - began >= 1.5
    assert child.wait() == -signal.SIGKILL
