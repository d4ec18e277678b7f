"""Bounds on every request, before a route sees it: how many at once, how large, how long (threats F32-F34)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autoglm_ops.serving.faults import RequestError
from autoglm_ops.serving.guard import answer


@dataclass(frozen=True)
class Bounds:
    """requests: answered at once. body_bytes: read of one request. seconds: from its first byte of body to its answer."""

    requests: int = 1024
    body_bytes: int = 16 * 2**20
    seconds: float = 30.0


class Limits:
    """ASGI middleware. Reads the whole body itself, counting, so that no route ever holds an unbounded stream."""

    def __init__(self, app: ASGIApp, bounds: Bounds) -> None:
        self._app = app
        self._bounds = bounds
        self._admitted = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._admitted >= self._bounds.requests:
            await answer(
                RequestError(503, "overloaded", "the server is answering as many requests as it may", retry_after=1), send
            )
            return
        self._admitted += 1  # counted at admission, not at completion, or a burst gets in whole
        try:
            await self._bounded(scope, receive, _Sender(send))
        finally:
            self._admitted -= 1

    async def _bounded(self, scope: Scope, receive: Receive, send: _Sender) -> None:
        state = "reading"
        try:
            async with asyncio.timeout(self._bounds.seconds):
                body = await self._read(scope, receive)
                state = "answering"
                if body is not None:
                    await self._app(scope, _replay(body, receive), send)
        except RequestError as fault:
            await answer(fault, send)
        except TimeoutError:
            if send.started:  # the client reads too slowly; uvicorn closes what stays incomplete
                return
            late = RequestError(408, "body_too_slow", f"the body took more than {self._bounds.seconds:g} s to arrive")
            if state == "answering":
                late = RequestError(
                    504, "deadline", f"no answer within {self._bounds.seconds:g} s; try again later", retry_after=1
                )
            await answer(late, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body, or None when the client left. Raises RequestError 413 as soon as it is known to be too large."""
        limit = self._bounds.body_bytes
        too_large = RequestError(413, "body_too_large", f"a body may have at most {limit} bytes; send fewer texts at once")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise too_large
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            size, more = size + len(chunks[-1]), message.get("more_body", False)
            if size > limit:
                raise too_large
        return b"".join(chunks)


class _Sender:
    """A `send` that knows whether the response has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, whole, and then what the server has to say."""
    pending = [body]

    async def again() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return again
