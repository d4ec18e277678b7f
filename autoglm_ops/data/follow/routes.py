"""Which handler takes which type of event: a file that is read again while the follower runs.

- {on: review.written, handler: document, options: {text: body, label: stars}}
- {on: chat.closed, handler: chat}
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoglm_ops.data.follow.handlers import HANDLERS, Handler
from autoglm_ops.errors import AutoGLMError, SettingsError

log = logging.getLogger(__name__)
_KEYS = ("on", "handler", "options")
_EXAMPLE = "write a list such as [{on: review.written, handler: document}]"
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Routes:
    """Handlers by type of event. `fingerprint` is of the file's content, so that a commit says what converted it."""

    handlers: Mapping[str, Handler]
    fingerprint: str


Parse = Callable[[str], Any]


def table(value: Any, where: str) -> dict[str, Handler]:
    """The handlers in a parsed file, by type of event. Raises SettingsError: file, entry, rule, and the nearest name."""
    if not isinstance(value, list) or not value:
        raise SettingsError(f"{where} must hold a list of at least one handler, but holds {value!r:.80}; {_EXAMPLE}")
    found: dict[str, Handler] = {}
    for place, item in enumerate(value, 1):
        at, item = f"{where}, entry {place}", _named(item)
        on = _checked(item, at)
        if on in found:
            raise SettingsError(f"{at}: {on!r} has a handler already; an event goes to one of them: remove the other")
        found[on] = _handler(item, at)
    return found


def _named(item: Any) -> Any:
    """YAML 1.1 reads the bare word `on` as true."""
    return {"on" if key is True else key: value for key, value in item.items()} if isinstance(item, dict) else item


def _checked(item: Any, at: str) -> str:
    if (
        not isinstance(item, dict)
        or not isinstance(item.get("on"), str)
        or not item["on"]
        or not isinstance(item.get("handler"), str)
    ):
        raise SettingsError(f"{at}: {item!r:.80} must be {{on: TYPE, handler: NAME}}, both of them text")
    for key in item:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            raise SettingsError(
                f"{at}: unknown key {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(_KEYS)}")
            )
    if not isinstance(item.get("options", {}), dict):
        raise SettingsError(f"{at}: options must be a mapping, but got {item['options']!r:.80}")
    return str(item["on"])


def _handler(item: Mapping[str, Any], at: str) -> Handler:
    try:
        made: Handler = HANDLERS.get(item["handler"])(**item.get("options", {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"{at}: options.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (
        AutoGLMError,
        TypeError,
        ValueError,
        ImportError,
        AttributeError,
    ) as error:  # other people's factories raise the latter
        raise SettingsError(f"{at}: {error}") from error
    return made


class LiveRoutes:
    """The table in `path`, as `parse` (text -> value) and `table` understand it.

    Raises SettingsError when it cannot be used at the start; later a bad one is said once, counted, and the last good one stays.
    A change is taken when it has stood for `settle` seconds: half of a file that is just being saved may be a valid table too.
    """

    def __init__(self, path: Path, parse: Parse, settle: float = 0.2) -> None:
        self._path, self._parse, self._settle = path, parse, settle
        self._judged = self._fresh = self._content()
        self._now = self._read(self._judged)
        self._since = time.monotonic()
        self.reloaded = self.refused = 0

    def now(self) -> Routes:
        """What holds now; looks at the file."""
        found = self._content()
        if found != self._fresh:
            self._fresh, self._since = found, time.monotonic()
        elif found != self._judged and time.monotonic() - self._since >= self._settle:
            self._judged = found
            self._swap(found)
        return self._now

    def _swap(self, found: bytes | str) -> None:
        try:
            self._now = self._read(found)
        except SettingsError as error:
            self.refused += 1
            log.warning("%s; the last good handlers stay", error)
            return
        self.reloaded += 1
        log.info("%s: handled from now on: %s", self._path.name, ", ".join(sorted(self._now.handlers)))

    def _content(self) -> bytes | str:
        """The file's bytes, or why there are none."""
        try:
            with self._path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except OSError as error:
            return error.strerror or type(error).__name__

    def _read(self, found: bytes | str) -> Routes:
        name = self._path.name
        if isinstance(found, str):
            raise SettingsError(f"{name} cannot be read: {found}; {_EXAMPLE}")
        if len(found) > MAX_BYTES:
            raise SettingsError(f"{name} has more than {MAX_BYTES} bytes; a table of handlers is smaller")
        try:
            handlers = table(self._parse(found.decode("utf-8")), name)
        except UnicodeDecodeError as error:
            raise SettingsError(f"{name} is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from error
        return Routes(handlers, hashlib.sha256(found).hexdigest())
