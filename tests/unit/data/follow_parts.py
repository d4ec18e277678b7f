"""What the follower's tests share: a log in a folder, a table of handlers, and what lies in the output."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from threading import Event
from typing import Any

import yaml

from autoglm_ops.contracts.follow import LogCommit
from autoglm_ops.data.follow import Bounds, Commits, LiveRoutes, Tally, follow, open_log

COLUMNS = {name: name for name in ("text", "label", "timestamp", "id", "source")}
TABLE = [{"on": "review", "handler": "document"}, {"on": "many", "handler": "documents"}, {"on": "chat", "handler": "chat"}]


def review(number: int, **more: Any) -> bytes:
    return json.dumps({"type": "review", "body": {"text": f"review {number}", **more}}).encode()


def write(path: Path, events: Iterable[bytes]) -> Path:
    """More lines at the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(event + b"\n" for event in events))
    return path


def handlers(path: Path, table: Any = TABLE) -> LiveRoutes:
    path.write_text(json.dumps(table))
    return LiveRoutes(path, yaml.safe_load)


def pull(log: Path, out: Path, routes: LiveRoutes, most: int = 1000) -> Tally:
    """Everything that is there now."""
    source = open_log(str(log))
    with Commits(out, source.name) as commits:
        return follow(source, commits, routes, COLUMNS, Bounds(most, 60, once=True), Event(), lambda _: None)


def lines(out: Path, name: str = "documents.jsonl") -> list[dict[str, Any]]:
    """Of all commits, in their order."""
    found = [path / name for path in sorted(out.iterdir()) if path.name.isdigit() and (path / name).exists()]
    return [json.loads(line) for path in found for line in path.read_bytes().split(b"\n") if line]


def records(out: Path) -> list[LogCommit]:
    return [LogCommit.read(path / "_commit.json") for path in sorted(out.iterdir()) if path.name.isdigit()]
