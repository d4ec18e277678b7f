"""Requests that write take turns on SQLite; requests that read do not wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from autoglm_airflow import turns
from autoglm_airflow.turns import Turns


class Watched:
    """An application that notes how many requests it was in at once, and ends a request when it is let go."""

    def __init__(self) -> None:
        self.inside, self.most = 0, 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.go.wait()
            if scope.get("path") == "/fails":
                raise RuntimeError("the handler failed")
        finally:
            self.inside -= 1


async def served(methods: list[str], path: str = "/") -> tuple[int, list[Any]]:
    """How many of these requests were inside at once, and what each came to."""
    app = Watched()
    guard = Turns(app)
    asked = [asyncio.create_task(guard({"type": "http", "method": method, "path": path}, None, None)) for method in methods]  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    app.go.set()
    return app.most, await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize(
    "methods, most", [(["POST", "PATCH", "DELETE", "PUT"], 1), (["GET", "HEAD", "GET"], 3), (["POST", "GET", "POST"], 2)]
)
def test_one_request_writes_at_a_time_and_readers_do_not_wait(monkeypatch: pytest.MonkeyPatch, methods: list[str], most: int):
    monkeypatch.setattr(turns, "one_writer", lambda: True)
    assert asyncio.run(served(methods)) == (most, [None] * len(methods))


def test_a_failed_request_gives_its_turn_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "one_writer", lambda: True)
    most, ends = asyncio.run(served(["POST", "POST"], "/fails"))
    assert most == 1
    assert [type(end) for end in ends] == [RuntimeError, RuntimeError]


def test_a_database_of_many_writers_needs_no_turns(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(turns, "one_writer", lambda: False)
    assert asyncio.run(served(["POST", "POST", "POST"]))[0] == 3
