"""What makes documents of an event's body: a mapping in, documents out (text, and optionally label, id, source, timestamp).

A handler says no by raising BadLineError with a reason word; its event is then quarantined whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from autoglm_ops.catalog import Catalog
from autoglm_ops.data.rows import BadLineError
from autoglm_ops.data.steps.options import options

Body = Mapping[str, Any]
Handler = Callable[[Body], Iterable[Body]]

HANDLERS = Catalog(
    "event handler",
    {
        "document": "autoglm_ops.data.follow.handlers:Document",
        "documents": "autoglm_ops.data.follow.handlers:Documents",
        "chat": "autoglm_ops.data.follow.handlers:Chat",
        "ignore": "autoglm_ops.data.follow.handlers:Ignore",
    },
    group="autoglm_ops.event_handlers",
)
_OURS = ("text", "label", "id", "source", "timestamp")


@options
class Document:
    """The body is one document; the options say what its fields are called there. Other fields are left out."""

    text: str = "text"
    label: str = "label"
    id: str = "id"
    source: str = "source"
    timestamp: str = "timestamp"

    def __call__(self, body: Body) -> Iterator[Body]:
        if self.text not in body:
            raise BadLineError("missing-column")
        yield {name: body[theirs] for name in _OURS if (theirs := getattr(self, name)) in body}


@options
class Documents:
    """The body holds a list of documents: all of them, or none."""

    field: str = "documents"

    def __call__(self, body: Body) -> Iterator[Body]:
        one = Document()
        for item in _list(body, self.field):
            yield from one(item)


@options
class Chat:
    """A list of messages `{role, content}` becomes one text, a turn a line: `role: content`. `roles` are those that are kept."""

    messages: str = "messages"
    roles: tuple[str, ...] = ("system", "user", "assistant")
    turn: str = "{role}: {content}"

    def __call__(self, body: Body) -> Iterator[Body]:
        turns = [self._said(item) for item in _list(body, self.messages)]
        said = "\n".join(turn for turn in turns if turn)
        if not said:
            raise BadLineError("no-messages")
        yield {"text": said, **{name: body[name] for name in _OURS[1:] if name in body}}

    def _said(self, item: Body) -> str:
        role, content = item.get("role"), item.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise BadLineError("wrong-type")
        return self.turn.replace("{role}", role).replace("{content}", content) if role in self.roles else ""


@options
class Ignore:
    """Events that are known, and wanted by nobody: counted as kept, and made nothing of."""

    def __call__(self, body: Body) -> Iterable[Body]:
        return ()


def _list(body: Body, field: str) -> list[Body]:
    found = body.get(field)
    if found is None:
        raise BadLineError("missing-column")
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise BadLineError("wrong-type")
    return found
