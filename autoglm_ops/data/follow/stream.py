"""A log in a Redis stream: the field `event` of each entry. The owner of redis.

Our position is the id of the last entry taken, kept with the documents; the server keeps none (a consumer group's would be a second
truth). Entries that were trimmed away unread are noticed by the stream's own count of what was ever added (Redis 7, Valkey).
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from autoglm_ops.data.follow.events import MAX_EVENT, Entry
from autoglm_ops.errors import Tampered, TryAgain, UsageError

FIELD = b"event"
USER, PASSWORD = "AUTOGLM_REDIS_USERNAME", "AUTOGLM_REDIS_PASSWORD"
_ONCE = 256  # entries of one answer
_AT = re.compile(r"(\d+)-(\d+)@(\d+)")
Answer = tuple[dict[str, Any] | None, list[tuple[bytes, dict[bytes, bytes]]]]
BEGIN = "begin anew with another output folder"


class At(NamedTuple):
    """Behind entry `time`-`step`, the `number`-th that was ever added."""

    time: int = 0
    step: int = 0
    number: int | None = None

    @property
    def id(self) -> str:
        return f"{self.time}-{self.step}"

    @classmethod
    def of(cls, text: str) -> At:
        """Raises Tampered for what is no offset of such a log."""
        if not text:
            return cls()
        if (found := _AT.fullmatch(text)) is None:
            raise Tampered(f"{text[:80]!r} is no place in a Redis stream; give this log an output folder of its own")
        return cls(*map(int, found.groups()))


class RedisLog:
    """`redis://host:port/stream`, or rediss:// over TLS. User and password come from the environment.

    `patience`: seconds that a server may be away before it is said.
    """

    pause = 0.2

    def __init__(self, location: str, patience: float = 30.0) -> None:
        parts = urlsplit(location)
        self._stream, tls = parts.path.removeprefix("/"), parts.scheme.lower() == "rediss"
        if parts.username or parts.password or parts.query:
            raise UsageError(
                f"the address of a Redis stream names host, port and stream alone; put the user in {USER}, the password in {PASSWORD}"
            )
        if not parts.hostname or not self._stream:
            raise UsageError(f"{location!r} names no stream; write redis://HOST:PORT/STREAM")
        self.name, self._patience = location, patience
        self._server = redis.Redis(
            parts.hostname,
            parts.port or 6379,
            username=os.environ.get(USER),
            password=os.environ.get(PASSWORD),
            ssl=tls,
            socket_timeout=30,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), 0),  # its own would also try a wrong password again
        )

    def read(self, after: str, most: int) -> Iterator[Entry]:
        here, left = At.of(after), most
        while left > 0:
            info, found = self._look(here, min(left, _ONCE))
            here = self._checked(here, info)
            for identity, fields in found:
                here = _behind(here, identity)
                raw = fields.get(FIELD, b"") if fields else b""
                fits = len(raw) <= MAX_EVENT
                yield Entry(here.id, f"{here.id}@{here.number}", raw if fits else raw[: MAX_EVENT + 1], fits)
            left -= len(found)
            if not found:
                return

    def _look(self, here: At, most: int) -> Answer:
        """`_ask`, until it is answered or `patience` is spent. Raises TryAgain."""
        end, delay = time.monotonic() + self._patience, 0.1
        while True:
            try:
                return self._ask(here, most)
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if time.monotonic() + delay > end:
                    raise TryAgain(f"{self.name} does not answer ({type(error).__name__}); start it, or try again") from error
            time.sleep(random.uniform(0, delay))
            delay = min(2 * delay, 8.0)

    def _ask(self, here: At, most: int) -> Answer:
        """What the stream says of itself, and the entries behind `here`, of one moment; None when there is no stream."""
        try:
            with self._server.pipeline(transaction=True) as both:
                both.xinfo_stream(self._stream)
                both.xrange(self._stream, min=f"({here.id}", count=most)
                info, found = both.execute(raise_on_error=False)
        except (redis.AuthenticationError, redis.ResponseError) as error:
            raise self._refused(error) from error
        if isinstance(info, redis.ResponseError) and "no such key" in str(info):
            return None, []
        for answer in (info, found):
            if isinstance(answer, redis.RedisError):
                raise self._refused(answer) from answer
        return info, found

    def _checked(self, here: At, info: dict[str, Any] | None) -> At:
        """`here` with its number. Raises Tampered when the stream is another one, or has lost entries that were not read."""
        if info is None:
            if here.number is not None:
                raise Tampered(
                    f"{self.name} is gone, but {here.number} entries of it were read; restore the stream, or {BEGIN}"
                )
            return here
        if "entries-added" not in info:
            raise UsageError(
                f"{self.name}: the server is older than Redis 7, and cannot say whether entries were lost; update it"
            )
        gone = info["entries-added"] - info["length"]
        if here.number is None:
            return here._replace(number=gone)
        if info["entries-added"] < here.number or _id(info["last-generated-id"]) < (here.time, here.step):
            raise Tampered(f"{self.name} was begun anew: entry {here.id} was read of it, and it ends before; {BEGIN}")
        if gone > here.number or _id(info["max-deleted-entry-id"]) > (here.time, here.step):
            raise Tampered(
                f"{self.name}: entries behind {here.id} were deleted before they were read; keep more of the stream, and {BEGIN}"
            )
        return here

    def _refused(self, error: redis.RedisError) -> UsageError:
        return UsageError(f"{self.name}: {error}; check that it is a stream, and {USER} and {PASSWORD}")


def _behind(here: At, identity: bytes) -> At:
    return At(*_id(identity), (here.number or 0) + 1)


def _id(text: bytes | str) -> tuple[int, int]:
    milliseconds, _, step = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(milliseconds), int(step)
