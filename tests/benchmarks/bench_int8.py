"""int8 against float32, by shape: seconds for one text and for 64, bytes on disk, memory, how far the answers move. One thread.

    python tests/benchmarks/bench_int8.py [--only glm-small] [--repeats 60]

Both models answer the same texts turn by turn, and a ratio is the median of the pairs, with its quartiles. Seconds are the process's
own, so that a busy machine counts little. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from autoglm_ops.training import artifact, int8
from autoglm_ops.training.inference import Classifier

WORDS = 8000
GLM = {
    "model_type": "glm",
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "vocab_size": WORDS,
    "use_cache": False,
}
BERT = {"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0, "vocab_size": 21128}


def glm(hidden: int, layers: int, heads: int) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers, "head_dim": hidden // heads}
    return {**GLM, **sizes, "num_attention_heads": heads, "num_key_value_heads": heads, "attention_dropout": 0.0}


def bert(hidden: int, layers: int, heads: int) -> dict[str, Any]:
    sizes = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers}
    return {**BERT, **sizes, "num_attention_heads": heads}


SHAPES = {
    "glm-small (128 x 1)": glm(128, 1, 4),
    "glm 256 x 4": glm(256, 4, 8),
    "bert 256 x 4": bert(256, 4, 4),
    "MiniLM's (bert 384 x 6)": bert(384, 6, 12),
    "bert 768 x 4": bert(768, 4, 12),
}


def saved(config: dict[str, Any], place: Path) -> tuple[Path, Path]:
    """The same random model, published in float32 and as int8."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    module = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(**config)).eval()
    tokenizer = Tokenizer(models.WordLevel({f"w{word}": word for word in range(config["vocab_size"])}, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ids = torch.randint(1, config["vocab_size"], (64, 40))
    made = []
    for kind in ("float32", "int8"):
        staged = place / f"{kind}.staged"
        module.save_pretrained(staged)
        if kind == "int8":
            int8.rewrite(staged, module, lambda asked: asked(input_ids=ids))
        tokenizer.save(str(staged / "tokenizer.json"))
        artifact.publish(staged, place / kind, architecture="any", labels=("neg", "pos"), max_length=128)
        made.append(place / kind)
    return made[0], made[1]


def texts(count: int, words: int) -> list[str]:
    random = np.random.default_rng(count)
    return [" ".join(f"w{word}" for word in random.integers(1, WORDS, words)) for _ in range(count)]


def timed(model: Classifier, asked: list[str]) -> float:
    started = time.process_time()
    model.predict(asked, 64)
    return time.process_time() - started


def ratio(models: tuple[Classifier, Classifier], asked: list[str], repeats: int) -> str:
    pairs = [(timed(models[0], asked), timed(models[1], asked)) for _ in range(repeats + 2)][2:]
    low, middle, high = statistics.quantiles([one / other for one, other in pairs], n=4)
    first, second = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
    return f"{first:.2f} -> {second:.2f} ms, {middle:.2f} times [{low:.2f}, {high:.2f}]"


def memory(folder: Path) -> str:
    """Megabytes that a process takes to load the model and answer once, at most and afterwards, above one that has imported the same."""
    code = "import sys, bench_int8; bench_int8.weigh(sys.argv[1])"
    call = [sys.executable, "-W", "ignore", "-c", code, str(folder)]
    told = json.loads(subprocess.run(call, cwd=Path(__file__).parent, capture_output=True, text=True, check=True).stdout)
    return f"{told['peak']:.0f}/{told['after']:.0f} MB"


def weigh(folder: str) -> None:
    import transformers

    assert transformers.GlmForSequenceClassification and transformers.BertForSequenceClassification
    before = _resident()
    model = Classifier.load(Path(folder))
    model.predict(["w1 w2"])
    peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line) / 1024
    print(json.dumps({"peak": peak - before, "after": _resident() - before}))


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="part of a shape's name (repeatable)")
    parser.add_argument("--repeats", type=int, default=60)
    given = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    for name, config in SHAPES.items():
        if given.only and not any(part in name for part in given.only):
            continue
        with tempfile.TemporaryDirectory() as place:
            folders = saved(config, Path(place))
            models = (Classifier.load(folders[0]), Classifier.load(folders[1]))
            sizes = [next(folder.glob("*.safetensors")).stat().st_size / 1e6 for folder in folders]
            moved = np.abs(np.subtract(*(model.predict(texts(64, 40)) for model in models)))
            print(f"{name}: {sizes[0]:.1f} -> {sizes[1]:.1f} MB ({1 - sizes[1] / sizes[0]:.0%} less); "
                  f"memory peak/after {memory(folders[0])} -> {memory(folders[1])}; probabilities move {moved.mean():.4f}, {moved.max():.4f} at most")  # fmt: skip
            for count, repeats in ((1, given.repeats), (64, max(5, given.repeats // 6))):
                print(f"  {count} of 40 tokens: {ratio(models, texts(count, 40), repeats)}", flush=True)


if __name__ == "__main__":
    main()
