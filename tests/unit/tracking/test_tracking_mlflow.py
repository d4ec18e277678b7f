"""What MLflow's own failures become, and that a run written in pieces is one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_ops.errors import AutoGLMError, Tampered, TryAgain, UsageError
from autoglm_ops.tracking.mlflow import Tracker, connect, reached
from autoglm_ops.tracking.run import TrackedRun


@pytest.mark.parametrize(
    ("uri", "error", "words"),
    [
        ("http://user:canary@127.0.0.1:9", TryAgain, "does not answer"),
        ("postgresql+nodriver://user:canary@127.0.0.1:9/x", UsageError, "install the driver"),
        ("postgresql+nodriver://user:kR3/canary@127.0.0.1:9/x", UsageError, "install the driver"),
        ("gopher://user:canary@host", UsageError, "check tracking.uri"),
        ("sqlite:///{folder}/garbage.db", Tampered, "damaged"),
    ],
)
def test_each_failure_has_its_exit_code_and_no_password(
    uri: str, error: type[AutoGLMError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "garbage.db").write_bytes(bytes(range(256)) * 20)
    where = uri.format(folder=tmp_path)
    with pytest.raises(error, match=words) as caught, reached(where):
        connect(where, tmp_path).search_experiments(max_results=1)
    assert "canary" not in str(caught.value)


def test_a_run_cut_off_is_continued_and_nothing_doubles(tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.png").write_bytes(b"png")
    run = TrackedRun(
        key="run1", started=1e9, params={f"p{n}": "api_key=canary" for n in range(150)}, metrics={"f1": 0.5},
        series={"loss": tuple((step, 1 / step) for step in range(1, 1500))}, tags={"note": "password: canary"},
        artifacts={"plots": str(tmp_path / "plots"), "deep/gone.txt": str(tmp_path / "gone.txt")}, dataset="d" * 64,
    )  # fmt: skip
    tracker = Tracker(None, tmp_path, "autoglm")
    tracked = tracker.track_run(run)
    client = connect(None, tmp_path)
    client.update_run(tracked.run_id, status="RUNNING")  # as a killed writer leaves it
    assert tracker.track_run(run) == tracked
    stored = client.get_run(tracked.run_id)
    assert stored.info.status == "FINISHED" and len(stored.data.params) == 150
    assert len(client.get_metric_history(tracked.run_id, "loss")) == 1499
    assert stored.data.params["p0"] == "api_key=***" and "canary" not in stored.data.tags["note"]
    assert stored.data.tags["autoglm.missing_artifacts"] == "deep/gone.txt"
    assert len(client.search_runs([tracked.experiment_id])) == 1
