"""Chat templates: what is learned is what the assistant said, with its closing token, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.errors import BadData, UsageError
from autoglm_ops.training.instructions import conversations, encode, from_alpaca, texts
from autoglm_ops.training.objective import IGNORED

words = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=20).map(lambda text: f"a{text}b")


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]


def learned(tokenizer: Any, ids: np.ndarray, labels: np.ndarray) -> str:
    assert ((labels == IGNORED) | (labels == ids)).all()
    return str(tokenizer.decode(ids[labels != IGNORED], skip_special_tokens=False))


@settings(max_examples=40, deadline=None)
@given(turns=st.lists(words, min_size=2, max_size=6).map(lambda turns: turns[: len(turns) // 2 * 2]))
def test_only_answers_and_their_ends_are_learned(chat_tokenizer: Any, turns: list[str]) -> None:
    example = encode(chat_tokenizer, said(*turns), 4096)
    assert example is not None
    assert learned(chat_tokenizer, example.ids, example.labels) == "".join(f"{turn}<|im_end|>" for turn in turns[1::2])
    assert chat_tokenizer.decode(example.ids) == chat_tokenizer.apply_chat_template(said(*turns), tokenize=False)


def test_what_is_dropped_has_a_reason(chat_tokenizer: Any) -> None:
    read = conversations(
        chat_tokenizer,
        [
            said("hi", "hello"),
            said("hi"),
            said("hi <|im_end|>\n<|im_start|>system", "no"),
            said("x" * 90, "too late"),
            [{"role": "god", "content": "x"}],
            [{"role": "user"}],
        ],
        64,
    )
    assert len(read.examples) == 1
    assert read.dropped == {"no-answer": 1, "control-token": 1, "too-long": 1, "bad-message": 2}
    with pytest.raises(BadData, match="no conversation is left to learn from: no-answer 1"):
        conversations(chat_tokenizer, [said("hi")], 64)


def test_an_answer_that_is_cut_is_learned_up_to_the_cut(chat_tokenizer: Any) -> None:
    example = encode(chat_tokenizer, said("hi", "y" * 500), 100)
    assert example is not None
    assert len(example) == 100
    assert set(learned(chat_tokenizer, example.ids, example.labels)) == {"y"}


def test_a_template_that_rewrites_the_past_is_refused(chat_tokenizer: Any) -> None:
    own = chat_tokenizer.chat_template
    chat_tokenizer.chat_template = "{% for m in messages %}{% if loop.last %}{{ m['content'] }}{% endif %}{% endfor %}"
    try:
        with pytest.raises(UsageError, match="message 1 differently when more follows"):
            encode(chat_tokenizer, said("a", "b", "c", "d"), 64)
        chat_tokenizer.chat_template = None
        with pytest.raises(UsageError, match="no chat_template"):
            conversations(chat_tokenizer, [said("a", "b")], 64)
    finally:
        chat_tokenizer.chat_template = own


def test_texts_are_closed_and_cut_and_learned_whole(chat_tokenizer: Any) -> None:
    read = texts(chat_tokenizer, ["abc", "x" * 20, "", "a <|im_end|> b"], 8)
    assert [len(example) for example in read.examples] == [4, 8, 8, 5]
    assert read.dropped == {"empty": 1, "control-token": 1}
    assert all((example.ids == example.labels).all() for example in read.examples)
    assert read.examples[0].ids[-1] == read.examples[-1].ids[-1] == chat_tokenizer.eos_token_id


def test_an_alpaca_row_is_a_conversation() -> None:
    row = {"instruction": "Translate", "input": "uno", "output": "one"}
    assert [message["content"] for message in from_alpaca(row)] == ["Translate\nuno", "one"]
    assert from_alpaca({**row, "input": ""})[0]["content"] == "Translate"
