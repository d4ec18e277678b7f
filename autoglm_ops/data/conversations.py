"""Conversations out of any location the readers know: JSON Lines of messages, or of instruction, input and output (alpaca)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from autoglm_ops.data.readers.limits import Limits
from autoglm_ops.data.readers.names import kind_of
from autoglm_ops.data.readers.places import locate, survey
from autoglm_ops.data.readers.shards import Blob, Part
from autoglm_ops.data.readers.unpack import Unpacked
from autoglm_ops.data.rows import BadLineError
from autoglm_ops.data.strict import parse
from autoglm_ops.errors import BadData

Message = dict[str, str]
_FORMS = (".jsonl", ".ndjson")
_CHUNK = 1 << 20
_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
"""ShareGPT's words for who speaks, and the usual ones."""


def looks_like(location: str, limits: Limits) -> bool:
    """Whether the first record at `location` is a conversation."""
    for blob in survey(location, limits).blobs:
        kind = kind_of(blob.name)
        if kind and kind.form in _FORMS:
            for raw in _lines(location, blob, limits):
                try:
                    return messages_of(parse(raw)) is not None
                except BadLineError:
                    continue
        return False
    return False


def read(location: str, limits: Limits, distinct: bool) -> tuple[list[list[Message]], Counter[str]]:
    """Every conversation, in order of names and lines, and how many lines went for which reason.

    `distinct` drops exact repeats (reason: duplicate). Raises BadData when a file is of another format, or nothing is left.
    """
    found: list[list[Message]] = []
    dropped: Counter[str] = Counter()
    seen: set[bytes] = set()
    for blob in survey(location, limits).blobs:
        kind = kind_of(blob.name)
        if kind is None or kind.form not in _FORMS:
            raise BadData(
                f"{blob.name}: conversations are JSON Lines ({' or '.join(_FORMS)}); convert the file", ("bad-format",)
            )
        for raw in _lines(location, blob, limits):
            messages, reason = _judged(raw, seen if distinct else None)
            if messages is None:
                dropped[reason] += 1
            else:
                found.append(messages)
    if not found:
        why = ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items())) or "no line was there"
        raise BadData(f"{location!r} holds no conversation: {why}", tuple(sorted(dropped)) or ("no-rows",))
    return found, dropped


def messages_of(record: Mapping[str, Any]) -> list[Message] | None:
    """The conversation in one record, None when it holds none: `messages`, `conversations` (ShareGPT), or instruction and output."""
    for name in ("messages", "conversations"):
        if isinstance(record.get(name), list):
            return _turns(record[name])
    asked, answer = record.get("instruction", record.get("prompt")), record.get("output", record.get("response"))
    if not isinstance(asked, str) or not isinstance(answer, str):
        return None
    more = record.get("input")
    told = f"{asked}\n{more}" if isinstance(more, str) and more else asked
    return [{"role": "user", "content": told}, {"role": "assistant", "content": answer}]


def _turns(given: list[Any]) -> list[Message] | None:
    turns = []
    for item in given:
        if not isinstance(item, Mapping):
            return None
        role, content = _ROLES.get(str(item.get("role", item.get("from")))), item.get("content", item.get("value"))
        if role is None or not isinstance(content, str):
            return None
        turns.append({"role": role, "content": content})
    return turns or None


def _judged(raw: bytes, seen: set[bytes] | None) -> tuple[list[Message] | None, str]:
    try:
        messages = messages_of(parse(raw))
    except BadLineError as error:
        return None, str(error)
    if messages is None:
        return None, "no-conversation"
    if seen is not None:
        key = hashlib.sha256(json.dumps(messages, ensure_ascii=False).encode()).digest()
        if key in seen:
            return None, "duplicate"
        seen.add(key)
    return messages, ""


def _lines(location: str, blob: Blob, limits: Limits) -> Iterator[bytes]:
    """Lines without their LF. Raises BadData for one longer than the limit."""
    kind = kind_of(blob.name)
    assert kind is not None
    with locate(location, limits).opened(Part(blob, 0, blob.size)) as raw:
        stream = Unpacked(raw, kind.packing, blob.name, limits) if kind.packing else raw
        rest = b""
        while chunk := stream.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line for line in lines if line.strip())
            if len(rest) > limits.line:
                raise BadData(f"{blob.name} has a line of more than {limits.line} bytes; cut it", ("too-long",))
        if rest.strip():
            yield rest
