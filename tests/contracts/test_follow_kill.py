"""kill -9 at random moments: over a folder and a stream, what was committed is the log, once and in order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

import pytest
import yaml

from autoglm_ops.data.follow import Bounds, Commits, LiveRoutes, follow, open_log

KILLS = 10  # of each log
EVENTS = 6000
COLUMNS = {name: name for name in ("text", "label", "timestamp", "id", "source")}
FOLLOWER = """
import sys
from pathlib import Path
from threading import Event
import yaml
from autoglm_ops.data.follow import Bounds, Commits, LiveRoutes, follow, open_log

address, out, table = sys.argv[1:]
log, routes = open_log(address), LiveRoutes(Path(table), yaml.safe_load)
print("ready", flush=True)
sys.stdin.readline()
names = {name: name for name in ("text", "label", "timestamp", "id", "source")}
with Commits(Path(out), log.name) as commits:
    print("follows", flush=True)
    follow(log, commits, routes, names, Bounds(7, 0.01), Event(), lambda tally: None)
"""


def event(number: int) -> bytes:
    """Every tenth is refused."""
    return json.dumps({"type": "review" if number % 10 else "strange", "body": {"text": f"{number}"}}).encode()


@pytest.fixture(params=["folder", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server = request.getfixturevalue("valkey")
        with server.client().pipeline() as all_at_once:
            for number in range(EVENTS):
                all_at_once.xadd("log", {"event": event(number)})
            all_at_once.execute()
        return f"redis://127.0.0.1:{server.port}/log"
    (tmp_path / "log").mkdir()
    for start in range(0, EVENTS, 500):
        body = b"".join(event(number) + b"\n" for number in range(start, start + 500))
        (tmp_path / "log" / f"{start:06d}.jsonl").write_bytes(body)
    return str(tmp_path / "log")


class Follower:
    """A process that has imported everything and waits for its turn, so that most kills hit the work."""

    def __init__(self, address: str, out: Path, table: Path) -> None:
        command = [sys.executable, "-c", FOLLOWER, address, str(out), str(table)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, out: Path, commits: int, seconds: float) -> None:
        """Let it make so many commits, and kill it so much later."""
        begun = made(out)
        assert self._child.stdin and self._child.stdout
        assert self._child.stdout.readline() == "ready\n"
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        assert self._child.stdout.readline() == "follows\n"
        end = time.monotonic() + 5  # a fast one may be through with the log
        while made(out) < begun + commits and time.monotonic() < end:
            assert self._child.poll() is None, "it ended by itself"
            time.sleep(0.001)
        time.sleep(seconds)
        self.end()

    def end(self) -> None:
        self._child.kill()
        self._child.communicate()


def made(out: Path) -> int:
    return sum(path.name.isdigit() for path in out.iterdir()) if out.exists() else 0


def lines(out: Path, name: str) -> list[dict[str, str]]:
    found = [path / name for path in sorted(out.iterdir()) if path.name.isdigit() and (path / name).exists()]
    return [json.loads(line) for path in found for line in path.read_text().splitlines()]


def test_killed_anywhere_nothing_is_lost_and_nothing_doubled(address: str, tmp_path: Path) -> None:
    out, table, dice = tmp_path / "out", tmp_path / "h.yaml", random.Random(7)
    table.write_text('[{"on": "review", "handler": "document"}]')
    waiting = Follower(address, out, table)
    stops = []
    for _ in range(KILLS):
        now, waiting = waiting, Follower(address, out, table)
        now.run(out, dice.randrange(6), dice.uniform(0, 0.02))
        stops.append(made(out))
    waiting.end()
    assert len({*stops}) > KILLS // 3, f"too few were killed at work, by the commits there were: {stops}"
    source = open_log(address)
    with Commits(out, source.name) as commits:
        routes = LiveRoutes(table, yaml.safe_load)
        follow(source, commits, routes, COLUMNS, Bounds(500, 1, once=True), Event(), lambda _: None)
    texts = [item["text"] for item in lines(out, "documents.jsonl")]
    refused = [json.loads(item["event"])["body"]["text"] for item in lines(out, "_quarantine.jsonl")]
    assert texts == [f"{number}" for number in range(EVENTS) if number % 10]
    assert refused == [f"{number}" for number in range(0, EVENTS, 10)]
    assert len({item["id"] for item in lines(out, "documents.jsonl")}) == len(texts)
