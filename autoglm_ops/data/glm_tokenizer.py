"""`glm-tokenizer`: byte pairs in GLM-4's layout (its control tokens and its turns), trained on the dataset at hand. Nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

NAME = "glm-tokenizer"
END = "<|endoftext|>"
CONTROL = (END, "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}"
    + END
    + "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""Each turn is closed, so that a model learns to end its own."""


def train(texts: Iterable[str], vocabulary: int, folder: Path) -> None:
    """A folder that transformers loads, of at most `vocabulary` ids. Byte-level (as GPT-2's, Radford et al. 2019): no text is unknown.

    The same texts in the same order give the same bytes.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": END,
        "eos_token": END,
        "additional_special_tokens": list(CONTROL[1:]),
        "chat_template": TEMPLATE,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
