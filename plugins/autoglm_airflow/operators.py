"""Operators that run the command line: open a run, run one of its stages, close it.

An operator believes a record, not a process: a stage has succeeded when `completed/<stage>.json` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from airflow.sdk import BaseOperator, SkipMixin
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from autoglm_airflow import requests
from autoglm_airflow.command import Command, Ended
from autoglm_airflow.events import told
from autoglm_airflow.links import MLflowLink, ReportLink
from autoglm_airflow.notify import owner_of_failure
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.record import Completion
from autoglm_ops.contracts.release import GateVerdict, Verdict
from autoglm_ops.errors import AutoGLMError, Tampered

RETRIES = 4
LONGEST_BACKOFF = timedelta(minutes=10)


class ToldOperator(BaseOperator):
    """Tells the terminal of its start and end, and its owner of its failure. A broken contract is a bug and is not tried again."""

    template_fields: Sequence[str] = ()
    ui_color = "#eef3fb"

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("on_failure_callback", owner_of_failure)
        super().__init__(**kwargs)

    def execute(self, context: Any) -> Any:
        with told(context) as event:
            try:
                return self.work(context, event)
            except (AutoGLMError, ValueError) as error:
                raise AirflowFailException(f"{type(error).__name__}: {error}") from error

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        """What the operator does, said by each. May put `cached` and `reason` into `event`."""


class CommandOperator(ToldOperator):
    """Works by running `autoglm …`. Exit 75 is retried with exponential back-off from `[core] default_task_retry_delay`."""

    def __init__(self, *, arguments: Sequence[str] = (), **kwargs: Any) -> None:
        kwargs.setdefault("retries", RETRIES)
        kwargs.setdefault("retry_exponential_backoff", True)
        kwargs.setdefault("max_retry_delay", LONGEST_BACKOFF)
        super().__init__(**kwargs)
        self.arguments = list(arguments)
        self._command: Command | None = None
        self._killed = False

    def command(self, *arguments: str) -> Ended:
        """Run `autoglm ARGUMENTS` to its end, whatever that is."""
        self._command = Command(self.log)
        if self._killed:
            raise AirflowException("told to stop before it began; the attempt is repeated")
        return self._command.run(arguments)

    def on_kill(self) -> None:
        self._killed = True
        if self._command is not None:
            self._command.stop()


def mapped(operator: type[CommandOperator], **more: Any) -> Any:
    """A task to be mapped, in the team's pool. What __init__ would default is given here: the scheduler reads it before."""
    return operator.partial(
        retries=RETRIES,
        retry_exponential_backoff=True,
        max_retry_delay=LONGEST_BACKOFF,
        on_failure_callback=owner_of_failure,
        **requests.pool(),
        **more,
    )


class OpenRunOperator(CommandOperator, SkipMixin):
    """Opens (or finds again) the workspace of this DAG run. When there is nothing to do, everything downstream is skipped.

    settings: DAG param -> settings key, for DAGs whose form has a field per setting. fixed: settings this DAG always sets.
    promote: False never promotes. Pushes RunInfo.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        fixed: Mapping[str, Any] | None = None,
        promote: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.settings = dict(settings or {})
        self.fixed = dict(fixed or {})
        self.promote = promote

    def work(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        request = requests.of(context, self.settings, self.fixed, self.promote)
        ended = self.command("runs", "open", *request.arguments(), "--json")
        ended.check()
        info = RunInfo.model_validate(ended.json())
        event["reason"] = f"{info.decision}: {info.reason}"
        answer = info.model_dump(mode="json")
        if info.decision != "run":
            self.log.info("nothing to do: %s", event["reason"])
            context["ti"].xcom_push(key="return_value", value=answer)
            self.skip(context["ti"], self.get_flat_relatives(upstream=False))
        return answer


class RunOperator(CommandOperator):
    """An operator that works in the run that the task `opened_by` opened."""

    operator_extra_links = (ReportLink(), MLflowLink())

    def __init__(self, *, opened_by: str = "open_run", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.opened_by = opened_by
        self.opened_run: str | None = None

    def info(self, context: Any) -> RunInfo:
        """The run. Raises AirflowFailException when it was never opened."""
        found = context["ti"].xcom_pull(task_ids=self.opened_by)
        if not found:
            raise AirflowFailException(f"task {self.opened_by} has opened no run; clear it and what comes after it")
        info = RunInfo.model_validate(found)
        self.opened_run = info.run
        return info


class StageOperator(RunOperator):
    """Runs one stage of the run, or takes its outputs from the cache. Pushes {stage, seconds, cached}."""

    PROMOTING: ClassVar[frozenset[str]] = frozenset({"promote", "deploy"})

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        kwargs.setdefault("task_id", stage)
        super().__init__(**kwargs)
        self.stage = stage

    def work(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        info = self.info(context)
        if self.stage in self.PROMOTING:
            no_promotion(Path(info.workspace))
        done = self.run_stage(info)
        event.update(cached=done.cached, reason="; ".join(done.reasons))
        if self.stage in self.PROMOTING and done.facts.get("promoted") is False:
            raise AirflowSkipException("; ".join(done.reasons) or f"{self.stage} had nothing to do")
        return {"stage": self.stage, "seconds": done.seconds, "cached": done.cached}

    def run_stage(self, info: RunInfo) -> Completion:
        """Run the stage and return its record."""
        return record_of(self.command("runs", "exec", info.run, self.stage), info, self.stage)


class CloseRunOperator(RunOperator):
    """Commits and pushes the run's branch. Idempotent."""

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        ended = self.command("runs", "close", self.info(context).run)
        ended.check()
        return ended.json()


class SummaryOperator(StageOperator):
    """The last stage, and the end of the run: it writes the summary, then closes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(stage="summary", **kwargs)

    def work(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        answer = super().work(context, event)
        self.command("runs", "close", self.info(context).run).check()
        return answer


def no_promotion(workspace: Path) -> None:
    """Raises AirflowSkipException with the gate's reasons when its verdict is not to promote: a no is a green run."""
    verdict = GateVerdict.read(workspace / "out" / "gate" / "verdict.json")
    if verdict.verdict is not Verdict.PROMOTE:
        raise AirflowSkipException(f"{verdict.verdict.value}: {'; '.join(verdict.reasons)}")
    if not requests.release_settings(workspace).get("promote", True):
        raise AirflowSkipException("release.promote is false: registered, not promoted")


def record_of(ended: Ended, info: RunInfo, stage: str) -> Completion:
    """The record of a stage whose command has ended. Raises as `Ended.check` does, and when exit and record do not agree."""
    record = _record(Path(info.workspace) / "completed" / f"{stage}.json")
    matches = record is not None and record.exit == ended.code
    ended.check("; ".join(record.reasons) if record and matches else None)
    if record is None or not matches:
        what = "missing" if record is None else f"of an attempt that ended with exit {record.exit}"
        raise AirflowException(f"{stage} exited 0 but completed/{stage}.json is {what}: not taken for done, tried again")
    return record


def _record(path: Path) -> Completion | None:
    try:
        return Completion.read(path) if path.exists() else None
    except Tampered:
        return None
