"""plan → tune → train as stages, with two DeepSpeed ranks: the outputs whole and repeatable, a kill survived, bad input refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from train_workspace import record, tuned, workspace

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.contracts.feedback import EmbeddingSample, PatchSet, SearchSpacePatch
from autoglm_ops.contracts.record import digest_path, digest_tree
from autoglm_ops.contracts.training import ParallelPlan, TrainingRecord, TuningReport
from autoglm_ops.errors import BudgetSpent, Refused, UsageError
from autoglm_ops.monitoring.embedding import bounded, shift
from autoglm_ops.settings import load
from autoglm_ops.stages import studies
from autoglm_ops.stages.runner import run_stage
from autoglm_ops.training import artifact
from autoglm_ops.training.inference import Classifier
from autoglm_ops.training.pooled import pooled


def start_training(root: Path) -> subprocess.Popen[bytes]:
    code = "import sys; from pathlib import Path; from autoglm_ops.stages.runner import run_stage; run_stage('train', Path(sys.argv[1]))"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AUTOGLM")}
    with (root / "log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-c", code, str(root)], stderr=log, env=environment)


def wait_for(pattern: str, root: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while not list(root.glob(pattern)):
        assert process.poll() is None, (root / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two workspaces of the same inputs: one trained undisturbed, one killed after its second checkpoint and started again."""
    folder = tmp_path_factory.mktemp("train")
    calm, killed = (tuned(workspace(folder / name), **{"train.weight_decay": 0.05}) for name in ("calm", "killed"))
    undisturbed, process = start_training(calm), start_training(killed)
    wait_for(".autoglm/scratch/train-*/checkpoints/step-*/manifest.json", killed, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = start_training(killed)
    for run, root in ((undisturbed, calm), (again, killed)):
        assert run.wait() == 0, (root / "log").read_text()
    return calm, killed


def test_the_model_folder_is_whole_and_classifies(trained: tuple[Path, Path]) -> None:
    out = trained[0] / "out" / "train"
    manifest = artifact.verify(out / "model", digest_path(out / "model"))
    assert sorted(manifest.files) == ["config.json", "embeddings.json", "model.safetensors", "reference.json", "tokenizer.json"]
    assert (manifest.labels, manifest.max_length, manifest.architecture) == (("neg", "pos"), 16, "GlmForSequenceClassification")
    chances = Classifier.load(out / "model").predict(["xyza", "xyzb"])
    assert chances.argmax(1).tolist() == [1, 0]
    assert not (trained[0] / ".autoglm" / "scratch").exists() or not list((trained[0] / ".autoglm" / "scratch").iterdir())


def test_the_model_brings_what_it_makes_of_texts_it_did_not_learn_from(trained: tuple[Path, Path]) -> None:
    """The sample in the folder is what the loaded classifier says of the same rows, and other texts are far from it."""
    out = trained[0] / "out"
    model = Classifier.load(out / "train" / "model")
    kept = EmbeddingSample.read(out / "train" / "model" / "embeddings.json")
    known = np.asarray(kept.vectors, np.float32)
    validation = TokenArrays.open(out / "tokenize", "validation")
    again = bounded(pooled(model._module, [validation[row] for row in range(len(validation))], model._pad_id))
    assert kept.width == 32 and len(known) == len(again) and np.allclose(known, again, atol=1e-3)
    assert not shift(known, again, 0.15, 0.001, len(again)).drifted
    assert shift(known, bounded(model.embed(["c" * 12] * len(known))), 0.15, 0.001, len(known)).drifted


def test_the_record_says_what_was_done(trained: tuple[Path, Path]) -> None:
    out = trained[0] / "out" / "train"
    told = TrainingRecord.read(out / "training.json")
    assert (told.steps, told.samples, told.epochs) == (80, 1280, 4.0)
    assert told.settings["train"]["weight_decay"] == 0.05
    assert told.weights_sha256 == digest_path(out / "model" / "model.safetensors")
    assert (told.averaged_from, told.best_step) == (57, 80)
    assert dict(told.validation)[told.best_step] > 0.9
    assert str(trained[0]) not in "".join(path.read_text() for path in out.rglob("*.json"))


def test_a_killed_run_gives_the_bytes_of_an_undisturbed_one(trained: tuple[Path, Path]) -> None:
    calm, killed = (digest_tree(root / "out" / "train") for root in trained)
    assert calm == killed
    assert "continuing from the checkpoint at step" in (trained[1] / "log").read_text() or _resumed(trained[1]) > 0


def _resumed(root: Path) -> int:
    from autoglm_ops.contracts.record import Completion

    return int(Completion.read(root / "completed" / "train.json").measured["resumed_at_step"])


@pytest.mark.slow  # another start of DeepSpeed; the loop's own test holds it for one process
def test_ranks_learn_from_the_teacher_what_the_labels_do_not_say(tmp_path: Path) -> None:
    root = workspace(tmp_path / "w", tokenize={"teacher": "tfidf"}, train={"teacher": 1.0}, plan={"ranks": 2})
    tokens = root / "out" / "tokenize"
    truth = np.load(tokens / "train.labels.npy")
    np.save(tokens / "train.teacher.npy", np.eye(2, dtype=np.float32)[truth])
    np.save(tokens / "train.labels.npy", np.where(np.random.default_rng(1).random(len(truth)) < 0.7, 1 - truth, truth))
    (tokens / "record.json").unlink()
    record(root, "tokenize")
    run_stage("train", tuned(root))
    told = TrainingRecord.read(root / "out" / "train" / "training.json")
    assert ParallelPlan.read(root / "out" / "plan" / "plan.json").ranks == 2 and told.settings["train"]["teacher"] == 1.0
    assert dict(told.validation)[told.best_step] > 0.9


@pytest.mark.slow  # another start of DeepSpeed; the unit tests hold each part of this
def test_a_rate_that_explodes_refuses_and_publishes_nothing(tmp_path: Path) -> None:
    root = tuned(workspace(tmp_path / "w", train={"warmup_share": 0.0, "gradient_clip": 1e30}), **{"train.learning_rate": 1e30})
    with pytest.raises(Refused, match=r"diverged: the loss is"):
        run_stage("train", root)
    assert not (root / "out" / "train").exists()


def test_a_plan_that_does_not_fit_refuses_and_keeps_its_numbers(tmp_path: Path) -> None:
    root = workspace(tmp_path / "w", model={"hidden_size": 16384, "layers": 64, "heads": 64})
    with pytest.raises(Refused, match=r"does-not-fit: a rank needs"):
        run_stage("plan", root)
    assert not (root / "out" / "plan").exists()
    assert not ParallelPlan.read(root / "refused" / "plan" / "plan.json").fits


def test_tuning_applies_patches_and_repeats_itself(tmp_path: Path) -> None:
    reports = []
    for name in ("a", "b"):
        root = workspace(tmp_path / name)
        narrow = SearchSpacePatch(
            key="tune.space.train.learning_rate", old={"loguniform": [1e-3, 2e-2]}, new={"loguniform": [5e-3, 6e-3]}, signal="quality",
            reason="fell", evidence={}, created="2026-01-02", expires="2026-01-09",
        )  # fmt: skip
        PatchSet(patches=(narrow,)).write(root / "inputs" / "patches.json")
        run_stage("plan", root)
        run_stage("tune", root)
        reports.append(TuningReport.read(root / "out" / "tune" / "report.json"))
    assert reports[0].to_json() == reports[1].to_json()
    assert reports[0].trials[0].params == {"train.learning_rate": 0.01}
    assert all(5e-3 <= trial.params["train.learning_rate"] <= 6e-3 for trial in reports[0].trials[1:])
    assert reports[0].reasons[0].startswith("patch tune.space.train.learning_rate")


def test_a_patch_of_a_space_that_changed_since_is_left_out_and_said(tmp_path: Path) -> None:
    root = workspace(tmp_path / "w", tune={"enabled": False})
    stale = SearchSpacePatch(
        key="tune.space.train.learning_rate", old={"loguniform": [1e-4, 2e-2]}, new={"loguniform": [1e-4, 1e-2]}, signal="drift",
        reason="moved", evidence={}, created="2026-01-02", expires="2026-01-09",
    )  # fmt: skip
    PatchSet(patches=(stale,)).write(root / "inputs" / "patches.json")
    run_stage("plan", root)
    run_stage("tune", root)
    report = TuningReport.read(root / "out" / "tune" / "report.json")
    assert report.space == {"train.learning_rate": {"loguniform": [1e-3, 2e-2]}}
    assert report.reasons[0].startswith(
        "stale patch of tune.space.train.learning_rate left out: made for {'loguniform': [0.0001"
    )


def test_tunemaster_pauses_continues_and_remembers(tmp_path: Path) -> None:
    """Twice the same, though the second run finds the first one's study kept; a run whose snapshot shows that study hears it."""
    reports = []
    for name in ("a", "b"):
        root = workspace(tmp_path / name, tune={"strategy": "tunemaster", "trials": 4, "steps": 18})
        run_stage("plan", root)
        run_stage("tune", root)
        reports.append(TuningReport.read(root / "out" / "tune" / "report.json"))
    assert reports[0].to_json() == reports[1].to_json()
    assert sum(trial.curve[-1][0] for trial in reports[0].trials) <= 4 * 18
    assert len(reports[0].trials) > 4 and {trial.state for trial in reports[0].trials} == {"complete", "pruned"}
    root = tmp_path / "a"
    shown = studies.history(load(root / "params.yaml"), root / ".autoglm")
    assert [len(study.trials) for study in shown.studies] == [len(reports[0].trials)]
    shown.write(root / "inputs" / "history.json")
    run_stage("tune", root)
    assert any("study tune-" in reason for reason in TuningReport.read(root / "out" / "tune" / "report.json").reasons)


def test_tuning_switched_off_says_so(tmp_path: Path) -> None:
    root = workspace(tmp_path / "w", tune={"enabled": False})
    run_stage("plan", root)
    run_stage("tune", root)
    report = TuningReport.read(root / "out" / "tune" / "report.json")
    assert (report.verdict, report.best, report.reasons) == ("off", {}, ("no trials: tune.enabled is false",))


@pytest.mark.parametrize(
    ("stage", "change", "kind", "said"),
    [
        ("plan", {"model": {"name": "glm-tinny"}}, UsageError, "did you mean 'glm-tiny'"),
        ("plan", {"plan": {"ranks": 3}}, UsageError, "not divisible by plan.ranks = 3"),
        ("tune", {"tune": {"space": {"train.epoch": {"int": [1, 2]}}}}, UsageError, "not a setting that can be tuned"),
        ("tune", {"tune": {"seconds": 0.001}}, BudgetSpent, "tune.seconds is 0.001"),
        ("train", {"train": {"batch_size": 640}}, Refused, "320 training rows are fewer than train.batch_size = 640"),
    ],
)
def test_bad_input_gives_one_clear_message(
    tmp_path: Path, stage: str, change: dict[str, dict[str, object]], kind: type[Exception], said: str
) -> None:
    root = workspace(tmp_path / "w", **change)
    if stage == "train":
        tuned(root)
    elif stage == "tune":
        run_stage("plan", root)
    with pytest.raises(kind, match=said):
        run_stage(stage, root)
    assert not (root / "out" / stage).exists()


def test_no_rank_is_left_behind() -> None:
    mine = [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is_group(path)]
    assert not mine


def _is_group(path: Path) -> bool:
    try:
        parts = path.read_bytes().split(b"\0")
    except OSError:
        return False
    return b"autoglm_ops.training.group" in parts and str(os.getpid()).encode() in parts
