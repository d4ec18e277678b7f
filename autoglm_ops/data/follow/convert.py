"""What becomes of one event: documents as lines, or a reason. A decision on values; the same event gives the same lines, in any batch."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple

from autoglm_ops.data.fields import MAX_NAME, to_row
from autoglm_ops.data.follow.events import Entry
from autoglm_ops.data.follow.handlers import Body
from autoglm_ops.data.follow.routes import Routes
from autoglm_ops.data.rows import BadLineError, Shape, raw_text
from autoglm_ops.data.strict import parse

log = logging.getLogger(__name__)
OURS = ("text", "label", "timestamp", "id", "source")
_UNFIT = re.compile(r"[^a-z0-9]+")
_SHAPE = Shape({name: name for name in OURS}, date.min)
# What code that was written for other data raises when it meets this: the event's fault as much as the handler's. The rest ends us.
_SURPRISES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Event(NamedTuple):
    """`{"type": …, "body": {…}}`; other keys of the object are nobody's business."""

    type: str
    body: Mapping[str, Any]


class Converted(NamedTuple):
    """The event's documents as lines, or the reason word it is quarantined for; exactly one of them is meant."""

    documents: tuple[bytes, ...] = ()
    reason: str | None = None
    type: str | None = None


class Writing(NamedTuple):
    """How documents are written: the log's name, from which ids are made, and what the reader calls our columns."""

    log: str
    columns: Mapping[str, str]


def convert(entry: Entry, routes: Routes, writing: Writing) -> Converted:
    """Parse, find the handler, convert, check. What cannot be read as a document later is refused now."""
    kind = None
    try:
        event = _event(entry)
        kind = event.type
        handler = routes.handlers.get(kind)
        if handler is None:
            return Converted(reason="no-handler", type=kind)
        made = tuple(_line(item, entry, place, kind, writing) for place, item in enumerate(handler(event.body)))
        return Converted(made, None, kind)
    except BadLineError as error:
        return Converted(reason=_word(str(error)), type=kind)
    except _SURPRISES as error:
        log.debug("%s: the handler of %s failed", entry.place, kind, exc_info=True)
        return Converted(reason=f"handler-failed-{type(error).__name__}", type=kind)


def quarantined(entry: Entry, found: Converted, log: str) -> bytes:
    """The line that tells of it. The event is in it whole, unless it was too long."""
    raw = entry.raw.decode("utf-8", "backslashreplace") if entry.fits else raw_text(entry.raw)
    return _json({"reason": found.reason, "log": log, "place": entry.place, "type": found.type, "event": raw})


def _event(entry: Entry) -> Event:
    if not entry.fits:
        raise BadLineError("too-long")
    found = parse(entry.raw)
    kind, body = found.get("type"), found.get("body")
    if not isinstance(kind, str) or not kind.isprintable() or not 0 < len(kind) <= MAX_NAME:
        raise BadLineError("no-type")
    if not isinstance(body, dict):
        raise BadLineError("no-body")
    return Event(kind, body)


def _line(document: Body, entry: Entry, place: int, kind: str, writing: Writing) -> bytes:
    """The document with an id that hangs on where its event lies, and not on the batch, unless it brought one."""
    if document.get("text", "") is None:
        raise BadLineError("null-text")
    identity = hashlib.sha256(f"{writing.log}\0{entry.place}\0{place}".encode()).hexdigest()[:16]
    given = {name: value for name, value in document.items() if name == "text" or (name in OURS and value not in (None, ""))}
    row = to_row({"label": None, "id": identity, "source": kind, **given}, _SHAPE, kind, place)
    written = {"text": row.text, "label": row.label, "id": row.id, "source": row.source}
    if "timestamp" in given:
        written["timestamp"] = row.timestamp
    return _json({writing.columns[name]: value for name, value in written.items() if value is not None})


def _word(reason: str) -> str:
    """A reason is counted, so it is one short word, whatever a handler says."""
    return _UNFIT.sub("-", reason.lower())[:64].strip("-") or "refused"


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n").encode("utf-8")
