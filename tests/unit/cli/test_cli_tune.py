"""`autoglm tune --diff | --storage`: what changed in a space, and where studies can be opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import yaml

from autoglm_ops.cli.main import main
from autoglm_ops.stages import studies
from autoglm_ops.tuning.database import Database
from autoglm_ops.tuning.space import parse_space

SPACE = {"train.learning_rate": {"loguniform": [1e-4, 1e-1]}}


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    assert ended.value.code in (0, None)
    return capsys.readouterr().out


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"tune": {"space": SPACE}}))
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(tmp_path))
    monkeypatch.setenv("AUTOGLM_HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_diff_says_versions_and_keys(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = checkout / "other.yaml"
    other.write_text(
        "tune: {space: {train.learning_rate: 'tune.loguniform(1e-4, 1e-2)', model.layers: 'tune.adaptive(1, 4)'}}\n"
    )
    lines = said(capsys, "tune", "--diff", str(other)).splitlines()
    assert lines[0].startswith("version ") and " becomes " in lines[0]
    assert lines[1:] == [
        "model.layers: {'adaptive': [1, 4]} is gone",
        "train.learning_rate: {'loguniform': [0.0001, 0.01]} becomes {'loguniform': [0.0001, 0.1]}",
    ]
    assert said(capsys, "tune", "--diff", str(checkout / "params.yaml")).strip() == "the same space"


def test_a_finished_study_is_kept_as_a_plain_rdb_storage(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What optuna-dashboard opens: Optuna's own tables, in one SQLite file."""
    import optuna

    scratch = checkout / "home" / "scratch" / "tune-abc"
    Database(scratch, None, "s", parse_space(SPACE), {"train.learning_rate": 1e-2}).create({"train.learning_rate": 1e-2})
    assert said(capsys, "tune", "--storage").strip() == f"sqlite:///{scratch / 'study.db'}"
    studies.keep_database(checkout / "home", scratch)
    url = said(capsys, "tune", "--storage").strip()
    assert url == f"sqlite:///{checkout / 'home' / 'studies' / 'tune-abc.db'}"
    assert [summary.study_name for summary in optuna.get_all_study_summaries(optuna.storages.RDBStorage(url))] == ["s"]
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        assert {"studies", "trials", "trial_values"} <= {row[0] for row in database.execute("select name from sqlite_master")}


def test_the_storage_on_a_server_is_said_without_its_password(
    checkout: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM__TRACKING__STUDIES", "postgresql+psycopg://me:canary@db/x")
    assert said(capsys, "tune", "--storage").strip() == "postgresql+psycopg://me:***@db/x"
    monkeypatch.setenv("AUTOGLM__TRACKING__STUDIES", "postgresql+psycopg://me:kR3/canary@db/x?sslpassword=canary")
    assert said(capsys, "tune", "--storage").strip() == "postgresql+psycopg://me:***@db/x?sslpassword=***"
