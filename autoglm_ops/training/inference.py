"""A published model as a classifier: verified, then made of the very bytes that were verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.errors import Tampered
from autoglm_ops.training import artifact, int8
from autoglm_ops.training.batch import collate
from autoglm_ops.training.pooled import pooled


class Classifier:
    """Texts to label probabilities. `labels[i]` is the label of column i."""

    def __init__(self, module: Any, tokenizer: Any, labels: tuple[str, ...], max_length: int, pad_id: int) -> None:
        self.labels = labels
        self.max_length = max_length
        self._module = module.eval()
        self._tokenizer = tokenizer
        self._pad_id = pad_id

    @classmethod
    def load(cls, folder: Path, digest: str | None = None) -> Self:
        """Verify `folder` (see `artifact.verify`) and load it. Raises Tampered; runs no code from the folder."""
        manifest = artifact.verify(folder, digest)
        # The files are read once more, and these bytes, checked again, are all that is used: nothing can be swapped in between.
        content = {name: (folder / name).read_bytes() for name in manifest.files}
        artifact.compare(folder, manifest, {name: hashlib.sha256(data).hexdigest() for name, data in content.items()})
        config = json.loads(content["config.json"])
        if (name := int8.weights_of(config)) not in content:
            raise Tampered(f"{folder} has no {name}; fetch or train the model again")
        module = _module(config, content[name])
        tokenizer = _tokenizer(content, manifest.max_length)
        return cls(module, tokenizer, manifest.labels, manifest.max_length, int(config["pad_token_id"]))

    def predict(self, texts: Sequence[str], batch_size: int = 256) -> NDArray[np.float64]:
        """Probabilities, float64 [len(texts), len(labels)], rows in the order given. Texts of like length share a batch."""
        rows = [self._ids(item) for item in self._tokenizer.encode_batch_fast(list(texts))]
        order = np.argsort([len(row) for row in rows], kind="stable")
        out = np.zeros((len(rows), len(self.labels)))
        for start in range(0, len(rows), batch_size):
            part = order[start : start + batch_size]
            out[part] = self._probabilities([rows[place] for place in part])
        return out

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """What the model makes of each text, float32 [len(texts), hidden size]; see `pooled`."""
        return pooled(self._module, [self._ids(item) for item in self._tokenizer.encode_batch_fast(list(texts))], self._pad_id)

    def _ids(self, encoded: Any) -> NDArray[np.int32]:
        return np.asarray(encoded.ids, np.int32)

    def _probabilities(self, rows: list[NDArray[np.int32]]) -> NDArray[np.float64]:
        batch = collate(rows, np.zeros(len(rows), np.int64), self._pad_id)
        with torch.inference_mode():
            logits = self._module(input_ids=batch.ids, attention_mask=batch.mask).logits
        return np.asarray(torch.softmax(logits.double(), dim=1).numpy())


def _module(config: dict[str, Any], weights: bytes) -> Any:
    from safetensors.torch import load
    from transformers import AutoConfig

    from autoglm_ops.training.readout import AutoModelForSequenceClassification

    if "auto_map" in config:
        raise Tampered("config.json asks for code of its own (auto_map); no published model does")
    told = config.get(int8.KEY)
    built = AutoConfig.for_model(
        **{"model_type": config["model_type"], **{k: v for k, v in config.items() if k not in ("model_type", int8.KEY)}}
    )
    with nullcontext() if told is None else int8.Hollow():
        module = AutoModelForSequenceClassification.from_config(built, trust_remote_code=False, dtype=torch.float32)
    int8.put(module, load(weights), told)
    return module


def _tokenizer(content: dict[str, bytes], max_length: int) -> Any:
    from tokenizers import Tokenizer

    name = next((name for name in ("tokenizer.json", "tokenizer/tokenizer.json") if name in content), None)
    if name is None:
        raise Tampered("the model folder has no tokenizer.json; train the model again")
    tokenizer = Tokenizer.from_buffer(content[name])
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer
