"""evaluate → gate → report in a workspace, with a real, tiny, published GLM and a real store: only the data is made up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from autoglm_ops.contracts.data import DatasetVersion, ValidationReport
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.inputs import AsOf
from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.record import digest_path, digest_tree
from autoglm_ops.contracts.release import Champion, EvaluationReport, GateVerdict, ModelRef, Verdict
from autoglm_ops.contracts.training import CheckpointManifest, ParallelPlan, TrainingRecord, TuningReport
from autoglm_ops.errors import BadData, Refused, Tampered
from autoglm_ops.evaluation.report import MARKER
from autoglm_ops.monitoring.drift import profile
from autoglm_ops.settings import Settings
from autoglm_ops.stages import evaluate, gate, report
from autoglm_ops.stages.base import Context
from autoglm_ops.store import open_store

GOOD, BAD = "好很喜欢", "差很失望"


def rows(count: int) -> dict[str, list[Any]]:
    """Texts whose first character gives the label away."""
    labels = ["neg" if number % 2 else "pos" for number in range(count)]
    texts = [f"{(BAD if label == 'neg' else GOOD)[number % 4]}{number}" for number, label in enumerate(labels)]
    days = [f"2026-01-0{1 + number % 3}" for number in range(count)]
    ids = [str(number) for number in range(count)]
    return {"id": ids, "text": texts, "label": labels, "day": days, "source": ["test"] * count, "weight": [1.0] * count}


def publish(folder: Path, labels: tuple[str, ...], seed: int) -> Path:
    """An untrained GLM classifier in the published layout."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GlmConfig, GlmForSequenceClassification

    characters = sorted(set("".join(rows(8)["text"]) + "0123456789"))
    words = {word: place for place, word in enumerate(("[PAD]", "[UNK]", *characters))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    config = GlmConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, pad_token_id=0, bos_token_id=None, eos_token_id=None, num_labels=len(labels),
    )  # fmt: skip
    torch.manual_seed(seed)
    GlmForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    profile(rows(300)["text"], rows(300)["label"]).write(folder / "reference.json")
    files = digest_tree(folder)
    CheckpointManifest(files=files, architecture="GlmForSequenceClassification", labels=labels, max_length=16).write(
        folder / "manifest.json"
    )
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    base = tmp_path_factory.mktemp("models")
    yield {
        "candidate": publish(base / "candidate", ("neg", "pos"), 1),
        "champion": publish(base / "champion", ("neg", "neutral", "pos"), 2),
    }


def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def workspace(tmp_path: Path, models: dict[str, Path]) -> Path:
    """A workspace filled up to `train`, with no champion."""
    root = tmp_path / "workspace"
    write_table(root / "out/prepare/train.parquet", rows(400))
    write_table(root / "out/prepare/gate.parquet", rows(150))
    profile(rows(400)["text"], rows(400)["label"]).write(root / "out/prepare/reference.json")
    shutil.copytree(models["candidate"], root / "out/train/model")
    shares = {split: {"neg": 0.5, "pos": 0.5} for split in ("train", "gate")}
    for name, record in {
        "validate/report.json": ValidationReport(verdict="accepted", rows_in=550, rows_out=550, quarantined={}, budget=100, expectations=()),
        "prepare/dataset.json": DatasetVersion(
            digest="a" * 64, rows={"train": 400, "gate": 150}, labels=("neg", "pos"), dropped={}, first_day="2026-01-01",
            last_day="2026-01-03", gate_days=("2026-01-01",), label_share=shares,
        ),
        "plan/plan.json": ParallelPlan(
            ranks=1, micro_batch=64, accumulation=1, zero_stage=0, precision="fp32", device="cpu", threads_per_rank=1,
            memory_bytes={"total": 1}, fits=True, reasons=(),
        ),
        "tune/report.json": TuningReport(verdict="off", objective="macro_f1", direction="maximize", space={}),
        "train/training.json": TrainingRecord(
            architecture="glm", parameters=1, plan_digest="", settings={}, steps=1, epochs=1, samples=1, tokens=1, losses=((1, 0.7),),
            validation=(), best_step=1, weights_sha256="",
        ),
    }.items():  # fmt: skip
        record.write(root / "out" / name)
    Champion().write(root / "inputs/champion.json")
    PatchSet().write(root / "inputs/patches.json")
    AsOf(day="2026-01-06").write(root / "inputs/as_of.json")
    SignalsOfDay().write(root / "inputs/signals.json")
    return root


def context(root: Path, stage: str) -> Context:
    out = root / "out" / stage
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    settings = Settings.model_validate(yaml.safe_load("evaluate: {resamples: 300}"))
    home = root.parent / "home"
    return Context(root=root, out=out, home=home, origin=root, scratch=home / "scratch/x", run="local", settings=settings)


def run_all(root: Path) -> GateVerdict:
    for name, stage in (("evaluate", evaluate), ("gate", gate), ("report", report)):
        stage.run(context(root, name))
    return GateVerdict.read(root / "out/gate/verdict.json")


def crown(root: Path, model: Path) -> str:
    digest = open_store(None, root.parent / "home").put(model)
    Champion(model=ModelRef(name="autoglm", version=1, digest=digest), metric=0.5).write(root / "inputs/champion.json")
    return digest


def test_an_untrained_model_is_no_first_champion_and_the_run_is_green(workspace: Path) -> None:
    verdict = run_all(workspace)
    assert verdict.verdict is not Verdict.PROMOTE
    assert any(reason.startswith("below-tfidf: ") for reason in verdict.reasons)
    columns = pq.read_table(workspace / "out/evaluate/predictions.parquet").column_names
    assert columns == ["id", "day", "label", "candidate", "candidate_score", "majority", "tfidf"]
    assert {path.name for path in (workspace / "out/evaluate/plots").iterdir()} == {
        "confusion.png",
        "days.png",
        "reliability.png",
    }
    assert (workspace / "out/report/report.html").read_text().count(MARKER) == 1


def test_a_champion_with_another_label_set_comes_from_the_store_and_is_compared(
    workspace: Path, models: dict[str, Path]
) -> None:
    crown(workspace, models["champion"])
    run_all(workspace)
    found = EvaluationReport.read(workspace / "out/evaluate/evaluation.json")
    assert found.champion is not None
    assert found.against_champion is not None
    assert [row.drifted for row in found.drift] == [False] * len(found.drift) != []
    assert "champion" in pq.read_table(workspace / "out/evaluate/predictions.parquet").column_names
    assert "champion autoglm v1" in (workspace / "out/report/report.html").read_text()


def test_twice_gives_the_same_bytes(workspace: Path, models: dict[str, Path]) -> None:
    crown(workspace, models["champion"])
    run_all(workspace)
    first = {name: digest_path(workspace / "out" / name) for name in ("evaluate", "gate", "report")}
    run_all(workspace)
    assert first == {name: digest_path(workspace / "out" / name) for name in first}


def test_a_champion_that_is_lost_or_altered_is_refused(workspace: Path, models: dict[str, Path]) -> None:
    Champion(model=ModelRef(name="autoglm", version=1, digest="0" * 64)).write(workspace / "inputs/champion.json")
    with pytest.raises(Refused, match="no artefact"):
        evaluate.run(context(workspace, "evaluate"))
    digest = crown(workspace, models["champion"])
    stored = workspace.parent / "home/store" / digest / "config.json"
    stored.chmod(0o644)
    stored.write_text(stored.read_text() + " ")
    with pytest.raises(Tampered):
        evaluate.run(context(workspace, "evaluate"))


def test_no_gate_rows_are_bad_data(workspace: Path) -> None:
    empty = pq.read_table(workspace / "out/prepare/gate.parquet").slice(0, 0)
    pq.write_table(empty, workspace / "out/prepare/gate.parquet")
    with pytest.raises(BadData, match="no rows to judge on"):
        evaluate.run(context(workspace, "evaluate"))
