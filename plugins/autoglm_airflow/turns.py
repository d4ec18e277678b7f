"""One writing request at a time, where Airflow's database has one writer.

Airflow's API server writes its audit log on its event loop, and on SQLite waits there for whoever holds the write lock. When that is
another request of the same server, which needs the event loop to commit, neither moves until SQLite's patience ends: four clients that
trigger runs stood still for a minute (Airflow 3.3.2, api_fastapi/logging/decorators.py, log_action). Requests that take turns never
wait for each other inside the database; other processes commit without this event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Turns:
    """ASGI middleware over the whole server, the tasks' own API included. Requests that only read pass at once."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._turn = asyncio.Lock() if one_writer() else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._turn is None or scope["type"] != "http" or scope["method"] in READING:
            await self._app(scope, receive, send)
            return
        async with self._turn:
            await self._app(scope, receive, send)


def one_writer() -> bool:
    """Whether Airflow's database is SQLite."""
    from airflow import settings

    return bool(settings.engine.dialect.name == "sqlite")
