"""Deny by default: without a key nothing is reached but the public paths, whatever routes exist (threats F30)."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from autoglm_ops.serving.faults import RequestError
from autoglm_ops.serving.keys import Keys

PUBLIC = frozenset({"/healthz"})
DENIED = RequestError(
    401, "invalid_api_key", "send the server's key as `Authorization: Bearer KEY`; where it lies is said at start-up"
)


class Guard:
    """ASGI middleware. Judges the raw path and headers before anything parses them."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._may_pass(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await answer(DENIED, send)
        else:  # a websocket: refused before it is accepted
            await send({"type": "websocket.close", "code": 1008})

    def _may_pass(self, scope: Scope) -> bool:
        public = scope["type"] == "http" and scope["path"] in PUBLIC
        return self._keys.admit(list(scope["headers"])) or public


async def answer(fault: RequestError, send: Send) -> None:
    """Send a fault as the whole response."""
    body, headers = fault.raw()
    await send({"type": "http.response.start", "status": fault.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
