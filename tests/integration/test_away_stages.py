"""The train stage through the store, as on a cluster: the same bytes as here, and nothing of the journey in the records."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from away_workspace import prepared, settings_of

from autoglm_ops.cluster import exchange
from autoglm_ops.contracts.cluster import Work
from autoglm_ops.contracts.record import Completion, digest_path
from autoglm_ops.errors import Tampered, TryAgain
from autoglm_ops.stages import away, runner, runs
from autoglm_ops.store import open_store, s3


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage run in its workspace, for comparison."""
    root = prepared(tmp_path_factory.mktemp("here") / "w")
    runner.run_stage("train", root)
    return root


def test_through_the_store_the_bytes_are_the_same(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepared(tmp_path / "w", rehearse=True)
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(tmp_path / "somebodys"))  # as Airflow's tasks have it: no place for a job
    completion = runs.launch(root, "train")
    assert digest_path(root / "out" / "train") == digest_path(here / "out" / "train")
    mine, theirs = completion, Completion.read(runner.completion_path(here, "train"))
    assert (mine.inputs, mine.outputs, mine.facts, mine.exit) == (theirs.inputs, theirs.outputs, theirs.facts, 0)
    started = time.monotonic()
    assert runs.launch(root, "train").outputs == mine.outputs  # asked again, the store answers
    assert time.monotonic() - started < 5
    _a_changed_output_is_refused(root)


def _a_changed_output_is_refused(root: Path) -> None:
    store = root / ".autoglm" / "store"
    weights = next(path for path in store.glob("*/model/model.safetensors"))
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    before = digest_path(root / "out" / "train")
    with pytest.raises(Tampered, match=r"model\.safetensors"):
        runs.launch(root, "train")
    assert digest_path(root / "out" / "train") == before


def test_a_changed_input_is_refused_by_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = prepared(tmp_path / "w", rehearse=True)
    store = open_store(None, root / ".autoglm")
    digest = store.put(root / "out" / "prepare")
    lied = root / ".autoglm" / "store" / digest / "reference.json"
    lied.chmod(0o644)
    lied.write_text("[]\n")
    with pytest.raises(runs.StageFailedError, match=r"reference\.json") as caught:
        runs.launch(root, "train")
    assert caught.value.exit_code == 3
    assert Completion.read(runner.completion_path(root, "train")).exit == 3


def test_a_store_that_is_away_stands_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raised before anything is sent, and yet the run says why its stage did not run, and that it may be tried again."""
    monkeypatch.setattr(s3.S3Store.__init__, "__defaults__", (0.5, s3.PART))  # the budget, of a minute
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:1", "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AUTOGLM__STORE__URI", "s3://models/p")
    root = prepared(tmp_path / "w", rehearse=True)
    for attempt in (1, 2):
        with pytest.raises(TryAgain) as raised:
            runs.launch(root, "train")
        record = Completion.read(runner.completion_path(root, "train"))
        assert (record.exit, record.attempt, record.reasons) == (75, attempt, (str(raised.value),))


@pytest.mark.slow
def test_two_nodes_of_one_rank_each_learn_the_same(here: Path, tmp_path: Path) -> None:
    root = prepared(tmp_path / "w", rehearse=True, resources={"nodes": 2})
    settings = settings_of(root)
    store = open_store(str(tmp_path / "store"), tmp_path)
    work: Work = away.work_of(root, "train", settings, store)
    key = exchange.describe(store, work)
    attempt = exchange.claim(store, key)
    base = {**os.environ, "AUTOGLM_JOB_STORE": str(tmp_path / "store"), "AUTOGLM_JOB_ATTEMPT": str(attempt)}
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "autoglm_ops.cluster.remote", key],
            env={**base, "AUTOGLM_NODE_RANK": str(rank), "AUTOGLM_NODE_ADDRESS": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(2)
    ]
    assert [node.wait(timeout=300) for node in nodes] == [0, 0]
    result = exchange.finished(store, key)
    assert result is not None
    store.get(result.outputs["out/train"], tmp_path / "got")
    assert digest_path(tmp_path / "got") == digest_path(here / "out" / "train")
    shutil.rmtree(tmp_path / "store")
