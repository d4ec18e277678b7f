"""The stage runner: digests are checked, outputs appear whole or not at all, and every end leaves a completion."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from autoglm_ops.contracts.record import Completion, StageRecord
from autoglm_ops.errors import BadData, Refused, SettingsError, Tampered, UsageError
from autoglm_ops.settings import load
from autoglm_ops.stages import graph, runner
from autoglm_ops.stages.base import Context, Outcome, Spec

ROOT = Path(__file__).parents[3]


def first(context: Context) -> Outcome:
    (context.out / "a.txt").write_text(f"seed {context.settings.seed}\n")
    return Outcome(reasons=("made one file",), facts={"files": 1}, measured={"seconds": 0.1})


def second(context: Context) -> Outcome:
    (context.out / "b.txt").write_text(context.output("first", "a.txt").read_text() * 2)
    return Outcome()


def refusing(context: Context) -> Outcome:
    (context.out / "report.json").write_text("{}")
    raise BadData("too many bad rows", ("over-budget: 7 of 10 rows",))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = ModuleType("toy_stages")
    vars(module).update(first=first, second=second, refusing=refusing)
    monkeypatch.setitem(sys.modules, "toy_stages", module)
    specs = {
        "first": Spec("first", "toy_stages:first", params=("seed",)),
        "second": Spec("second", "toy_stages:second", after=("first",)),
        "refusing": Spec("refusing", "toy_stages:refusing", after=("first",), inputs=("as_of",)),
        "last": Spec("last", "toy_stages:second", after=("refusing",)),
    }
    monkeypatch.setattr(graph, "SPECS", specs)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "as_of.json").write_text('{"day": "2026-01-14"}')
    return tmp_path


def test_a_stage_leaves_output_record_and_completion(root: Path) -> None:
    completion = runner.run_stage("first", root)
    record = StageRecord.read(root / "out/first/record.json")
    assert record.outputs == completion.outputs == runner.check_outputs("first", root)
    assert record.facts == {"files": 1} and completion.measured == {"seconds": 0.1}
    assert Completion.read(root / "completed/first.json") == completion
    assert "seconds" not in (root / "out/first/record.json").read_text()


def test_the_same_stage_gives_the_same_bytes(root: Path) -> None:
    runner.run_stage("first", root)
    before = (root / "out/first/record.json").read_bytes()
    assert runner.run_stage("first", root).attempt == 2
    assert (root / "out/first/record.json").read_bytes() == before


@pytest.mark.parametrize("harm", ["change", "remove", "add"])
def test_a_later_stage_refuses_bytes_that_differ_from_their_record(root: Path, harm: str) -> None:
    runner.run_stage("first", root)
    target = root / "out/first/a.txt"
    if harm == "change":
        target.write_text("other")
    elif harm == "remove":
        target.unlink()
    else:
        (root / "out/first/extra.txt").write_text("extra")
    with pytest.raises(Tampered, match="out/first/"):
        runner.run_stage("second", root)
    assert Completion.read(root / "completed/second.json").exit == 3
    assert not (root / "out/second").exists()


def test_a_missing_stage_or_input_is_named_with_what_to_do(root: Path) -> None:
    with pytest.raises(UsageError, match="autoglm stage first"):
        runner.run_stage("second", root)
    runner.run_stage("first", root)
    (root / "inputs/as_of.json").unlink()
    with pytest.raises(UsageError, match="autoglm snapshot"):
        runner.run_stage("refusing", root)
    with pytest.raises(UsageError, match="unknown stage 'frist'; known"):
        runner.run_stage("frist", root)


def test_a_refusal_keeps_its_report_and_blocks_what_is_downstream(root: Path) -> None:
    runner.run_stage("first", root)
    with pytest.raises(BadData):
        runner.run_stage("refusing", root)
    completion = Completion.read(root / "completed/refusing.json")
    assert completion.exit == 3 and completion.reasons == ("over-budget: 7 of 10 rows",)
    assert (root / "refused/refusing/report.json").exists() and not (root / "out/refusing").exists()
    with pytest.raises(Refused, match="ended with exit 3"):
        runner.run_stage("last", root)


def test_what_dvc_restored_is_adopted_as_cached(root: Path) -> None:
    done = runner.run_stage("first", root)
    (root / "completed/first.json").unlink()
    adopted = runner.require("first", root)
    assert adopted.cached and adopted.outputs == done.outputs
    runner.run_stage("second", root)


def test_an_override_that_changes_outputs_is_refused_and_a_placement_key_is_not(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"train\.epochs = 9 \(--set train\.epochs\) differs"):
        runner.run_stage("first", root, overrides=("train.epochs=9",))
    monkeypatch.setenv("AUTOGLM__SEED", "99")
    with pytest.raises(SettingsError, match="seed = 99"):
        runner.run_stage("first", root)
    monkeypatch.setenv("AUTOGLM__SEED", "7")
    epochs = load(ROOT / "params.yaml").train.epochs
    runner.run_stage("first", root, overrides=("serving.port=9000", f"train.epochs={epochs}"))


def test_a_torn_completion_is_no_completion(root: Path) -> None:
    runner.run_stage("first", root)
    path = root / "completed/first.json"
    whole = path.read_bytes()
    for cut in range(0, len(whole), 37):
        path.write_bytes(whole[:cut])
        with pytest.raises(Tampered):
            runner.require("first", root)
    path.write_bytes(whole)
    assert runner.require("first", root).exit == 0
