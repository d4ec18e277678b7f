"""MLflow as the tracker: one run per run key, whole or continued, never doubled. The owner of mlflow (with release/registry.py).

Without a URI everything lives in `home/mlflow`: SQLite and a folder of artefacts. MLflow is imported on first use: 3.3 s.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.record import locked
from autoglm_ops.errors import Tampered, TryAgain, UsageError
from autoglm_ops.logs import redact, without_password
from autoglm_ops.tracking.points import Point
from autoglm_ops.tracking.run import Tracked, TrackedRun
from autoglm_ops.tracking.spool import Spool

log = logging.getLogger(__name__)

RUN_KEY = "autoglm.run_key"
# A server that is away must not hold a run for MLflow's own seven retries of two minutes each.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_AWAY = {"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
_USERINFO = re.compile(r"://[^/@\s]*@")
_METRICS_PER_BATCH = 1000
_PARAMS_PER_BATCH = 100


def default_uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"


def connect(uri: str | None, home: Path) -> Any:
    """An `MlflowClient` for tracking and registry at `uri`. Raises TryAgain when the database cannot be reached."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    where = uri or default_uri(home)
    with locked(home / "mlflow" / ".connect.lock"), reached(where):  # MLflow's first migration is not safe to run twice at once
        client = mlflow.MlflowClient(tracking_uri=where, registry_uri=where)
        if where.startswith("sqlite"):
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
    return client


@contextmanager
def reached(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into TryAgain (it is away, its disk is full), UsageError (it said no) or Tampered (damaged)."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

    where = f"MLflow at {_public(without_password(uri))}"
    try:
        yield
    except MlflowException as error:
        said = _public(str(error).strip().splitlines()[0])
        if error.error_code in _AWAY:
            raise TryAgain(f"{where} does not answer: {said}; start it, or set tracking.uri, and try again") from error
        raise UsageError(f"{where} refused: {said}; check tracking.uri and its rights") from error
    except OperationalError as error:
        raise TryAgain(f"{where} does not answer: {_public(str(error.orig))}; try again when it does") from error
    except DatabaseError as error:
        raise Tampered(f"{where} is damaged: {_public(str(error.orig))}; restore its database from a backup") from error
    except (ModuleNotFoundError, ArgumentError) as error:  # no such database driver, or none that is installed
        raise UsageError(f"{where} cannot be opened: {_public(str(error))}; install the driver, or set tracking.uri") from error
    except OSError as error:
        raise TryAgain(f"{where} cannot be written: {_public(str(error))}; try again when it can") from error


class Tracker:
    """Writes whole runs. What cannot be written is spooled on this machine, and delivered by the next run that can."""

    def __init__(self, uri: str | None, home: Path, experiment: str) -> None:
        self.uri, self.home, self.experiment = uri or default_uri(home), home, experiment
        self.spool = Spool(home / "mlflow" / "spool.bin")

    def track_run(self, run: TrackedRun) -> Tracked:
        """Write `run` once, after everything spooled before it. A run found complete is answered and not touched.

        Raises TryAgain when MLflow is away; `run` is then in the spool and will not be lost.
        """
        with locked(self.home / "mlflow" / ".track.lock"):
            try:
                client = connect(self.uri, self.home)
                with reached(self.uri):
                    self._replay(client)
                    return self._write(client, run)
            except TryAgain:
                self.spool.append(run)
                raise

    def _replay(self, client: Any) -> None:
        waiting = self.spool.runs()
        for run in waiting:
            self._write(client, run)
        self.spool.clear()
        if waiting:
            log.info("delivered %d spooled run(s) to MLflow", len(waiting))

    def _write(self, client: Any, run: TrackedRun) -> Tracked:
        experiment = self._experiment(client)
        found = client.search_runs([experiment], f"tags.`{RUN_KEY}` = '{run.key}'", max_results=1, order_by=["start_time ASC"])
        stored = found[0] if found else self._create(client, experiment, run)
        if stored.info.status != "FINISHED":
            _log(client, stored.info.run_id, run)
            client.set_terminated(stored.info.run_id, "FINISHED")
        return Tracked(stored.info.run_id, experiment, stored.info.artifact_uri)

    def begin(self, client: Any, run: TrackedRun) -> str:
        """The id of the run of this key, made with its parameters when there is none."""
        experiment = self._experiment(client)
        found = client.search_runs([experiment], f"tags.`{RUN_KEY}` = '{run.key}'", max_results=1, order_by=["start_time ASC"])
        stored = found[0] if found else self._create(client, experiment, run)
        if not found:
            _log(client, stored.info.run_id, run)
        return str(stored.info.run_id)

    def _experiment(self, client: Any) -> str:
        found = client.get_experiment_by_name(self.experiment)
        if found:
            return str(found.experiment_id)
        local = self.uri.startswith("sqlite")
        place = (self.home / "mlflow" / "artifacts").resolve().as_uri() if local else None
        return str(client.create_experiment(self.experiment, artifact_location=place))

    def _create(self, client: Any, experiment: str, run: TrackedRun) -> Any:
        tags = {name: redact(value)[:8000] for name, value in run.tags.items()}
        return client.create_run(
            experiment,
            start_time=int(run.started * 1000),
            tags={**tags, RUN_KEY: run.key},
            run_name=run.tags.get("autoglm.name", run.key),
        )


class LiveRun:
    """A run that is written while it trains: points as they come, each once. The same key finds the same run again."""

    def __init__(self, uri: str | None, home: Path, experiment: str, key: str, params: Mapping[str, str]) -> None:
        self._tracker, self._key, self._params = Tracker(uri, home, experiment), key, dict(params)
        self._client: Any = None
        self.run_id = ""

    def send(self, points: Sequence[Point]) -> None:
        """A `points.Send`. MLflow keeps one row for equal (run, key, step, time, value). Raises TryAgain when it is away."""
        from mlflow.entities import Metric

        client = self._opened()
        metrics = [Metric(name, value, point.at, point.step) for point in points for name, value in point.values.items()]
        with reached(self._tracker.uri):
            for start in range(0, len(metrics), _METRICS_PER_BATCH):
                client.log_batch(self.run_id, metrics=metrics[start : start + _METRICS_PER_BATCH])

    def finish(self, tags: Mapping[str, str]) -> None:
        """Tags of what came out, and the end. Raises TryAgain when MLflow is away."""
        client = self._opened()
        with reached(self._tracker.uri):
            for name, value in tags.items():
                client.set_tag(self.run_id, name, redact(value)[:8000])
            client.set_terminated(self.run_id, "FINISHED")

    def _opened(self) -> Any:
        if self._client is None:
            client = connect(self._tracker.uri, self._tracker.home)
            with locked(self._tracker.home / "mlflow" / ".track.lock"), reached(self._tracker.uri):
                run = TrackedRun(
                    key=self._key, started=time.time(), params=self._params, metrics={}, series={},
                    tags={"autoglm.name": f"launch {self._key[:8]}"}, artifacts={}, dataset="",
                )  # fmt: skip
                self.run_id = self._tracker.begin(client, run)
            self._client = client
        return self._client


def _log(client: Any, run_id: str, run: TrackedRun) -> None:
    """Log everything. Points and parameters that are already there are the same and stay as they are."""
    from mlflow.entities import Metric, Param

    at = int(run.started * 1000)
    points = [Metric(name, value, at, 0) for name, value in run.metrics.items()]
    points += [Metric(name, value, at, step) for name, pairs in run.series.items() for step, value in pairs]
    params = [Param(name, redact(value)[:6000]) for name, value in run.params.items()]
    for start in range(0, len(params), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])
    for start in range(0, len(points), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=points[start : start + _METRICS_PER_BATCH])
    _log_dataset(client, run_id, run)
    _log_artifacts(client, run_id, run)


def _log_dataset(client: Any, run_id: str, run: TrackedRun) -> None:
    from mlflow.entities import Dataset, DatasetInput

    if run.dataset:  # MLflow keeps 36 characters of a dataset's digest; the whole one is a tag
        client.log_inputs(run_id, [DatasetInput(Dataset("autoglm", run.dataset[:36], "dvc", f'{{"digest": "{run.dataset}"}}'))])


def _log_artifacts(client: Any, run_id: str, run: TrackedRun) -> None:
    missing = []
    for place, source in run.artifacts.items():
        path = Path(source)
        if path.is_dir():
            client.log_artifacts(run_id, str(path), place)
        elif path.is_file():
            client.log_artifact(run_id, str(path), str(Path(place).parent) if "/" in place else None)
        else:  # a spooled run whose workspace was pruned since: say so in the run itself
            missing.append(place)
    if missing:
        client.set_tag(run_id, "autoglm.missing_artifacts", ", ".join(missing))


def _public(text: str) -> str:
    """`text` without secrets, and without the user and password of any URL in it."""
    return redact(_USERINFO.sub("://", text))
