"""`autoglm tune --dry-run` says what a study would take and trains nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from autoglm_ops.cli.main import main


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tree = {"tune": {"trials": 4, "steps": 60, "space": {"train.learning_rate": {"loguniform": [1e-3, 1e-2]}}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(tmp_path))
    return tmp_path


def test_a_dry_run_prints_the_space_and_the_estimate(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", "--dry-run", "--set", "tune.strategy=tunemaster", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0
    assert (told["strategy"], told["steps"], told["rungs"], told["seconds"]) == ("tunemaster", 240, [7, 20, 60], None)
    assert told["space"] == {"train.learning_rate": {"loguniform": [0.001, 0.01]}}


@pytest.mark.parametrize(
    ("change", "said"),
    [("tune.strategy=tunemastr", "did you mean 'tunemaster'"), ("tune.budget.trials=0", "tune.budget.trials")],
)
def test_a_wrong_setting_is_named(checkout: Path, capsys: pytest.CaptureFixture[str], change: str, said: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", "--dry-run", "--set", change])
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_dry_run_reads_well(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tune", "--dry-run"])
    out = capsys.readouterr().out
    assert "train.learning_rate" in out and "at most 4 trials, 240 steps, scored at [20, 40, 60]" in out
