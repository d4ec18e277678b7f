"""Conversations and texts to token rows: the tokenizer's chat template, and labels on nothing but the assistant's words.

A row is an `Example`: ids and labels, both int of one length, the label IGNORED where nothing is to be learned. What is dropped is dropped
for a reason that can be counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.errors import BadData, UsageError
from autoglm_ops.training.objective import IGNORED

ROLES = ("system", "user", "assistant")
Conversation = Sequence[Mapping[str, str]]
"""Messages of `role` (one of ROLES) and `content`."""


@dataclass(frozen=True)
class Example:
    """ids int32 [tokens], labels int64 [tokens]: the id again where it is to be learned, IGNORED elsewhere."""

    ids: NDArray[np.int32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Read:
    """Examples in order, and how many conversations went for which reason."""

    examples: list[Example] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def conversations(tokenizer: Any, given: Iterable[Conversation], max_length: int) -> Read:
    """Encode each conversation with `tokenizer` (a fast one of transformers, with a chat template), cut to `max_length` tokens.

    Dropped: bad-message, no-answer (no assistant), control-token (a text holds one of the tokenizer's special tokens, which would become
    a turn of the template: threats F35), too-long (no answer left in max_length). Raises UsageError on a tokenizer that cannot serve,
    BadData when nothing is left.
    """
    _serves(tokenizer)
    special = [token for token in tokenizer.all_special_tokens if token]
    read = Read()
    for conversation in given:
        reason = _fault(conversation, special)
        example = None if reason else encode(tokenizer, conversation, max_length)
        if example is None:
            read.dropped[reason or "too-long"] += 1
        else:
            read.examples.append(example)
    return _some(read, "conversation")


def encode(tokenizer: Any, conversation: Conversation, max_length: int) -> Example | None:
    """One conversation, None when no answer's token is left after the cut.

    An answer is what the template adds behind its own opening of an assistant's turn, the closing token with it, so that the model learns
    to end. Found by rendering each beginning of the conversation: templates rarely mark their generations themselves.
    """
    text, spans = _rendered(tokenizer, conversation)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=True, max_length=max_length)
    ids = np.asarray(found["input_ids"], np.int32)
    starts = np.asarray([start for start, _ in found["offset_mapping"]], np.int64)
    asked = np.zeros(len(ids), bool)
    for start, end in spans:
        asked |= (starts >= start) & (starts < end)
    if not asked[1:].any():
        return None
    return Example(ids, np.where(asked, ids, IGNORED).astype(np.int64))


def texts(tokenizer: Any, given: Iterable[str], max_length: int) -> Read:
    """Plain text for pre-training: every token is learned, each document closed by the end token and cut into rows of `max_length`.

    Dropped: empty, control-token. Raises UsageError when the tokenizer has no end token, BadData when nothing is left.
    """
    if tokenizer.eos_token_id is None:
        raise UsageError("the tokenizer has no eos_token, which closes each document; set one")
    special = [token for token in tokenizer.all_special_tokens if token]
    read = Read()
    for text in given:
        if any(token in text for token in special):
            read.dropped["control-token"] += 1
            continue
        ids = np.asarray([*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id], np.int32)
        if len(ids) < 2:
            read.dropped["empty"] += 1
            continue
        parts = [ids[at : at + max_length] for at in range(0, len(ids), max_length)]
        read.examples += [Example(part, part.astype(np.int64)) for part in parts if len(part) > 1]
    return _some(read, "text")


def from_alpaca(row: Mapping[str, str]) -> list[dict[str, str]]:
    """{instruction, input, output} as a conversation of two messages."""
    asked = row["instruction"] + (f"\n{row['input']}" if row.get("input") else "")
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


def _serves(tokenizer: Any) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError(f"{type(tokenizer).__name__} cannot say where its tokens stand in the text; use a fast tokenizer")
    if not tokenizer.chat_template:
        raise UsageError("the tokenizer has no chat_template; set the one its model was trained with")


def _fault(conversation: Conversation, special: Sequence[str]) -> str:
    for message in conversation:
        if message.get("role") not in ROLES or not isinstance(message.get("content"), str):
            return "bad-message"
        if any(token in message["content"] for token in special):
            return "control-token"
    return "" if any(message["role"] == "assistant" for message in conversation) else "no-answer"


def _rendered(tokenizer: Any, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
    """The text, and from where to where in it each answer goes. Raises UsageError when the template rewrites what came before."""
    messages = [dict(message) for message in conversation]
    whole: str = tokenizer.apply_chat_template(messages, tokenize=False)
    spans = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before: str = tokenizer.apply_chat_template(messages[:place], tokenize=False, add_generation_prompt=True)
        after: str = tokenizer.apply_chat_template(messages[: place + 1], tokenize=False).rstrip()
        if not (whole.startswith(after) and after.startswith(before)):
            raise UsageError(
                f"the chat template writes message {place} differently when more follows, so what the assistant said cannot be told "
                "from what the template said; use a template that only appends"
            )
        spans.append((len(before), len(after)))
    return whole, spans


def _some(read: Read, what: str) -> Read:
    if not read.examples:
        why = ", ".join(f"{reason} {count}" for reason, count in sorted(read.dropped.items())) or "none was given"
        raise BadData(f"no {what} is left to learn from: {why}", tuple(sorted(read.dropped)) or ("no-rows",))
    return read
