"""`autoglm launch` whole, through the command line: a bucket, DeepSpeed ranks, checkpoints, an artifact. The slow proofs of issue 4."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests" / "contracts"), str(ROOT / "tests" / "benchmarks")]

LAYOUT = """\
model: {{name: {model}, seq_length: {length}}}
dataset: {{path: {path}, tokenizer: {tokenizer}}}
training: {{batch_size: {batch}, precision: {precision}, optimizer: adamw}}
"""


def autoglm(folder: Path, *words: str, code: int = 0, **environment: str) -> dict[str, Any]:
    given = {
        **os.environ,
        "AUTOGLM_HOME": str(folder / "home"),
        "AUTOGLM_CHECKOUT": str(folder),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-m", "autoglm_ops", *words, "--json"],
        cwd=ROOT,
        env=given,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == code, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    return found


def package(folder: Path) -> Path:
    """A distribution whose entry point offers a callback: what `pip install` of somebody's wheel leaves."""
    root = folder / "site"
    (root / "theirs-1.0.dist-info").mkdir(parents=True)
    (root / "theirs-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (root / "theirs-1.0.dist-info" / "entry_points.txt").write_text(
        "[autoglm.callbacks]\ncount-steps = theirs:Counts\n[autoglm.losses]\ndouble = theirs:Double\n[autoglm.models]\nglm-theirs = theirs:config\n"
    )
    (root / "theirs.py").write_text(
        "from autoglm_ops.training.callbacks.base import Callback\n"
        "from autoglm_ops.training.objective import CausalLM\n"
        "class Counts(Callback):\n"
        "    def __init__(self, engine, out, name='steps'):\n        self._path = out / f'{name}-{engine.rank}.jsonl'\n"
        "    def on_step(self, progress):\n        self._path.open('a').write(f'{progress.step}\\n')\n"
        "class Double(CausalLM):\n"
        "    def loss(self, logits, batch, items):\n        return 2 * super().loss(logits, batch, items)\n"
        "def config():\n    return {'hidden_size': 48, 'layers': 1, 'heads': 4, 'dropout': 0.0}\n"
    )
    return root


@pytest.mark.slow
def test_the_layout_trains_from_a_bucket_in_bf16_with_a_batch_of_1024(tmp_path: Path) -> None:
    """Model, loss and callback come from an installed package; the loss it minimises is twice the usual one."""
    import boto3
    from s3_server import BUCKET, serve_s3

    dice = random.Random(0)
    lines = [json.dumps({"text": " ".join(dice.choices(["sun", "moon", "star", "tide"], k=24)) + f" {n}"}) for n in range(3000)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "s3").mkdir()
    with serve_s3(tmp_path / "s3") as environment:
        client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
                              aws_access_key_id=environment["AWS_ACCESS_KEY_ID"], aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"])  # fmt: skip
        client.upload_file(str(tmp_path / "a.jsonl"), BUCKET, "pretrain-data/a.jsonl")
        config = tmp_path / "train-config.yaml"
        config.write_text(
            LAYOUT.format(
                model="glm-theirs",
                length=16,
                path=f"s3://{BUCKET}/pretrain-data",
                tokenizer="glm-tokenizer",
                batch=1024,
                precision="bf16",
            )
        )
        more = ["--set", "dataset.vocabulary=300", "--set", "training.max_steps=2", "--set", "training.micro_batch=128",
                "--set", "training.callbacks=[{count-steps: {name: seen}}, json-lines]", "--set", "training.loss=double",
                "--set", "pipeline.tuner_trials=1", "--set", "pipeline.tuner_steps=2"]  # fmt: skip
        paths = os.pathsep.join([str(package(tmp_path)), str(ROOT), str(ROOT / "plugins")])
        words = ("launch", "--config", str(config), "--auto-pipeline", *more)
        done = autoglm(tmp_path, *words, **environment, PYTHONPATH=paths)
        again = autoglm(tmp_path, *words, **environment, PYTHONPATH=paths)
    trained = done["trained"]
    assert (trained["dtype"], trained["optimizer"], trained["samples"], trained["steps"]) == ("bfloat16", "AdamW", 2048, 2)
    assert trained["best_value"] < trained["first_value"]
    assert trained["first_value"] > 1.5 * 5.7  # twice the loss of 300 equally likely tokens
    folder = Path(done["folder"])
    assert (folder / "seen-0.jsonl").read_text() == (folder / "seen-1.jsonl").read_text() == "1\n2\n"
    assert {json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()} == {1, 2}
    assert "autoglm_train_loss" in (folder / "metrics.prom").read_text()
    assert done["untracked"] == ""
    assert again["again"]
    assert again["outputs"] == done["outputs"]
    from autoglm_ops.training import artifact

    manifest = artifact.verify(folder / "model", done["outputs"]["model"])
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= manifest.files.keys()
    from safetensors import safe_open

    with safe_open(folder / "model" / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(name).dtype) for name in file.keys()} == {"torch.bfloat16"}  # noqa: SIM118


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a model folder, and instructions beside it. Fetched: the rights of the samples vary."""
    import bench_sft

    root = tmp_path_factory.mktemp("smollm2")
    cache = Path(os.environ.get("AUTOGLM_TEST_CACHE") or root / "fetched")
    bench_sft.fetch(cache)
    bench_sft.as_folder(cache, root / "smollm2")
    with (root / "alpaca.jsonl").open("w") as file:
        file.writelines(json.dumps({"messages": one}) + "\n" for one in bench_sft.conversations(cache))
    return root


@pytest.mark.slow
def test_smollm2_learns_instructions_with_lora(smollm2: Path) -> None:
    config = smollm2 / "train-config.yaml"
    config.write_text(
        "model: {name: smollm2, seq_length: 256}\ndataset: {path: alpaca.jsonl, validation: 0.02}\n"
        "training: {batch_size: 4, precision: fp32, optimizer: adamw, learning_rate: 1.0e-3, max_steps: 2, evaluations: 1,\n"
        "  warmup_share: 0.0, lora: {rank: 8, targets: [q_proj, k_proj, v_proj, o_proj]}}\n"
    )
    done = autoglm(smollm2, "launch", "--config", str(config), "--auto-pipeline")
    assert done["trained"]["trained"] == 921_600
    assert done["trained"]["best_value"] < done["trained"]["first_value"]
    from autoglm_ops.training import artifact, lora
    from autoglm_ops.training.config import TrainerConfig
    from autoglm_ops.training.sources import module_of

    artifact.verify(Path(done["folder"]) / "adapter", done["outputs"]["adapter"])
    lora.load(module_of(TrainerConfig(model=str(smollm2 / "smollm2"))), Path(done["folder"]) / "adapter")
