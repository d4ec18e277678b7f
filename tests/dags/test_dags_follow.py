"""An event in a log starts a build: the follower, the asset's trigger and the command line between them, all of them real."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from autoglm_airflow.watch import POLL_SECONDS, NewDataTrigger
from autoglm_ops.data.follow.files import bucket_log
from autoglm_ops.settings import Settings

ROOT = Path(__file__).parents[2]
EVENT = '{"type": "review", "body": {"text": "number %d"}}\n'


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    checkout = tmp_path / "checkout"
    (checkout / "log").mkdir(parents=True)
    (checkout / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (checkout / "handlers.yaml").write_text("- {on: review, handler: document}\n")
    (tmp_path / "home" / "airflow").mkdir(parents=True)
    settings = {
        "LOCATION": "out",
        "LOG__SOURCE": "log",
        "LOG__OUT": "out",
        "LOG__HANDLERS": "handlers.yaml",
        "LOG__BATCH_SECONDS": "0.1",
    }
    for name, value in {"AUTOGLM_CHECKOUT": str(checkout), "AUTOGLM_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    for name, value in settings.items():
        monkeypatch.setenv(f"AUTOGLM__FLOW__{name}", value)
    return checkout / "log" / "a.jsonl"


async def fired(log: Path, times: int) -> list[str]:
    """The listings of the trigger's next events; before each of them one event comes into the log."""
    found: list[str] = []
    log.write_text(EVENT % 0)
    async with aclosing(NewDataTrigger(poll_seconds=0.05).run()) as events:
        async for event in events:
            found.append(event.payload["listing"])
            if len(found) == times:
                break
            with log.open("a") as file:
                file.write(EVENT % len(found))
    return found


def test_every_commit_is_news_for_the_asset(log: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "autoglm_ops", "data", "follow"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        listings = asyncio.run(asyncio.wait_for(fired(log, 2), 120))
        child.terminate()
        assert child.wait(30) == 0
    finally:
        child.kill()
    assert len({*listings}) == 2


def test_an_event_starts_a_build_within_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can pass between an event and the asset's: the log's own pause, a batch's age, the trigger's pause."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    pause = bucket_log("s3://bucket/log").pause  # the longest of the logs'
    assert pause + Settings().flow.log.batch_seconds + POLL_SECONDS < 60
