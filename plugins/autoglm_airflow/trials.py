"""A study's trials as mapped tasks: ask for a round, train its trials at once, ask again. Where they train is what `cluster` says.

Airflow has no loops, so the rounds that a study may take at most are laid out when the file is parsed; what is not needed is skipped, and
what they do not suffice for the stage `tune` does itself. The study is the same in any case.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator, TriggerRule
from airflow.sdk.exceptions import AirflowException

from autoglm_airflow import requests
from autoglm_airflow.command import ALONE
from autoglm_airflow.operators import RunOperator, mapped

MOST_ROUNDS = 24
PAUSING = frozenset({"halving", "tunemaster", "hyperband"})
RULE = TriggerRule.NONE_FAILED
OVER = "nothing is left for tasks of their own: the study is over, or `tune` sends its rounds away as one"


class AskOperator(RunOperator):
    """Tells the study what the last round brought, and pushes the trials of the next one. `after`: the round before, if there was one."""

    def __init__(self, *, after: str | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("trigger_rule", RULE)
        super().__init__(**kwargs)
        self.after = after

    def work(self, context: Any, event: dict[str, Any]) -> list[str]:
        if self.after is not None and not context["ti"].xcom_pull(task_ids=self.after):
            event["reason"] = OVER
            return []
        alone = ["--alone"] if ALONE in os.environ else []
        ended = self.command("trial", "ask", f"--in={self.info(context).run}", *alone)
        ended.check()
        looks = ended.json()
        event["reason"] = ", ".join(f"trial {look['number']} to step {look['to']}" for look in looks) or OVER
        return [json.dumps(look, sort_keys=True) for look in looks]


class TrialOperator(RunOperator):
    """Trains one trial on. When whoever trains it dies over and over, that is the study's to know: the next round finds it dead."""

    template_fields: Sequence[str] = ("look",)  # mapped over: it arrives as what it is, no text is rendered into it

    def __init__(self, *, look: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.look = look

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        asked, ti = json.loads(self.look), context["ti"]
        ended = self.command("trial", "run", f"--in={self.info(context).run}", f"--look={self.look}")
        try:
            ended.check()
        except AirflowException as error:
            if not _repeated(ended.code) or ti.try_number <= ti.max_tries:
                raise
            event["reason"] = f"left to the next round: {error}"
            return None
        told = ended.json()
        event["reason"] = told["refused"] or f"trial {asked['number']} at step {asked['to']}: {told['score']}"
        return told["score"]


def rounds(first: BaseOperator, opened_by: str = "open_run") -> BaseOperator:
    """Tasks for the rounds of the checkout's study, in a row after `first`; none where `tune.parallel` is 1. Returns the last."""
    tune = deployed_tune()
    width = int(tune.get("parallel") or 1)
    last, before = first, None
    for number in range(1, (planned(tune) if width > 1 else 0) + 1):
        asked = AskOperator(task_id=f"ask_{number}", after=before, opened_by=opened_by, trigger_rule=_rule(before))
        trials = mapped(TrialOperator, task_id=f"trials_{number}", opened_by=opened_by, max_active_tis_per_dagrun=width)
        last = last >> asked >> trials.expand(look=asked.output)
        before = f"ask_{number}"
    return last


def planned(tune: dict[str, Any]) -> int:
    """Rounds that a study may take: every look of every trial, so many at once, and the last trials' looks one after the other."""
    trials, width, looks = int(tune.get("trials") or 8), int(tune.get("parallel") or 1), int(tune.get("looks") or 3)
    if tune.get("strategy") in PAUSING:
        return MOST_ROUNDS
    scored = 1 if tune.get("strategy") in ("random", "grid") else looks
    return min(MOST_ROUNDS, math.ceil(trials * scored / width) + scored)


def deployed_tune() -> dict[str, Any]:
    """The `tune` section of the checkout's params.yaml, under $AUTOGLM__TUNE__PARALLEL."""
    section = requests.deployed("tune")
    if parallel := os.environ.get("AUTOGLM__TUNE__PARALLEL"):
        section["parallel"] = int(parallel)
    return section


def _rule(before: str | None) -> TriggerRule:
    return TriggerRule.ALL_SUCCESS if before is None else RULE


def _repeated(code: int) -> bool:
    return code == 75 or code > 128
