"""A workspace up to the stage `train`, small: what the stages before would have left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from autoglm_ops.contracts.arrays import TokenMeta, write_arrays
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.inputs import Folders
from autoglm_ops.contracts.record import StageRecord, digest_tree
from autoglm_ops.contracts.training import HardwareSpec, StudyHistory, TuningReport
from autoglm_ops.stages.runner import run_stage

WORDS = "abcdefghijklmnopqrstuvwxyz"
SETTINGS = {
    "model": {"name": "glm-tiny", "hidden_size": 32, "heads": 2},
    "tokenize": {"max_length": 16},
    "plan": {"ranks": 2},  # so small a model would be trained by one
    "train": {"batch_size": 16, "learning_rate": 0.01, "epochs": 4, "evaluations": 8},
    "tune": {"trials": 3, "steps": 12, "space": {"train.learning_rate": {"loguniform": [1e-3, 2e-2]}}},
}


def workspace(root: Path, **changes: dict[str, object]) -> Path:
    """What the stages before would have left: texts with an 'a' are pos, texts with a 'b' are neg."""
    tree = {section: {**SETTINGS.get(section, {}), **changes.get(section, {})} for section in SETTINGS | changes}
    root.mkdir(parents=True)
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    HardwareSpec(cpus=2, memory_gib=8).write(root / "inputs" / "hardware.json")
    PatchSet().write(root / "inputs" / "patches.json")
    StudyHistory().write(root / "inputs" / "history.json")
    Folders().write(root / "inputs" / "folders.json")
    tokens = root / "out" / "tokenize"
    (tokens / "tokenizer").mkdir(parents=True)
    tokenizer = Tokenizer(
        models.WordLevel({"[PAD]": 0, "[UNK]": 1, **{char: 2 + at for at, char in enumerate(WORDS)}}, "[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.save(str(tokens / "tokenizer" / "tokenizer.json"))
    random = np.random.default_rng(0)
    rows = {"train": 320, "validation": 48, "gate": 16}
    for split, count in rows.items():
        labels = [int(label) for label in random.integers(0, 2, count)]
        texts = ["".join(random.choice(list(WORDS[2:]), random.integers(1, 12))) + "ba"[label] for label in labels]
        write_arrays(tokens, split, [encoding.ids for encoding in tokenizer.encode_batch(texts)], labels)
    TokenMeta(vocabulary=28, pad_id=0, max_length=16, labels=("neg", "pos"), rows=rows).write(tokens / "meta.json")
    record(root, "tokenize")
    (root / "out" / "prepare").mkdir()
    (root / "out" / "prepare" / "reference.json").write_text("{}\n")
    record(root, "prepare")
    return root


def record(root: Path, stage: str) -> None:
    folder = root / "out" / stage
    outputs = {f"out/{stage}/{name}": digest for name, digest in digest_tree(folder).items()}
    StageRecord(stage=stage, inputs={}, outputs=outputs).write(folder / "record.json")


def tuned(root: Path, **best: object) -> Path:
    """A workspace up to `train`, its tuning report given."""
    run_stage("plan", root)
    report = TuningReport(verdict="tuned", objective="macro-F1", direction="maximize", space={}, best=best)
    report.write(root / "out" / "tune" / "report.json")
    record(root, "tune")
    return root
