"""The tasks of a dataset's build: thin calls of `autoglm data …`, the ones over shards mapped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from airflow.configuration import conf as airflow_conf
from airflow.sdk import TriggerRule
from airflow.sdk.exceptions import AirflowFailException

from autoglm_airflow import requests
from autoglm_airflow.operators import CommandOperator, mapped

# Without deduplication there are no key ranges, and the task mapped over them is skipped.
AFTER_NO_RANGES = TriggerRule.NONE_FAILED


class BuildOperator(CommandOperator):
    """A task of the build that the task `plan` began. Settings of the DAG run's `set` go with every command."""

    def sets(self, context: Any) -> list[str]:
        """One argument a setting, after `=`: nothing a form holds can become an option (threats F27)."""
        found = requests.allowed(context["params"].get("set") or {})
        return [f"--set={key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(found.items())]

    def build(self, context: Any) -> str:
        """The name of the build's work folder."""
        return str(context["ti"].xcom_pull(task_ids="plan")["work"])

    def answer(self, name: str, *arguments: str) -> Any:
        ended = self.command("data", name, "--json", *arguments)
        ended.check()
        return ended.json()


class PlanBuildOperator(BuildOperator):
    """Lists the location's files and cuts them into shards, no more than can be mapped over. Pushes {work, shards}."""

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        requests.known_keys(context["dag_run"].conf or {}, list(context["params"]))
        location = context["params"].get("location")
        answer = self.answer("plan", *self.sets(context), *(["--", str(location)] if location else []))
        event["reason"] = f"{answer['shards']} shards"
        _check_mappable(int(answer["shards"]))
        return answer


def _check_mappable(shards: int) -> None:
    """Raises AirflowFailException for more than Airflow maps over: it says so itself only of an XCom's length, and two tasks later."""
    most = airflow_conf.getint("core", "max_map_length", fallback=1024)
    if shards > most:
        raise AirflowFailException(
            f"{shards} shards are more than Airflow maps tasks over, which is {most} ([core] max_map_length); cut larger ones "
            "(flow.shard_mb, which this run may set), or raise that limit"
        )


class NumbersOperator(BuildOperator):
    """The tasks of `phase` by number, known only now: what a mapped task expands over."""

    def __init__(self, *, phase: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.phase = phase

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        return self.answer("numbers", self.build(context), self.phase)["numbers"]


class BuildTaskOperator(BuildOperator):
    """Task `number` of a phase. Done already, it does nothing; so a retry, a clear and a second trigger do nothing twice."""

    template_fields: Sequence[str] = ("number",)  # mapped over: it arrives as what it is, no text is rendered into it

    def __init__(self, *, phase: str, number: int = 0, **kwargs: Any) -> None:
        kwargs.setdefault("task_id", phase)
        kwargs.setdefault("trigger_rule", AFTER_NO_RANGES)
        super().__init__(**kwargs)
        self.phase = phase
        self.number = number

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        return self.answer("task", self.build(context), self.phase, *self.sets(context), "--", str(int(self.number)))


def over(phase: str, numbers: NumbersOperator) -> Any:
    """The tasks of `phase`, one for each of `numbers`."""
    return mapped(BuildTaskOperator, task_id=phase, phase=phase, trigger_rule=AFTER_NO_RANGES).expand(number=numbers.output)
