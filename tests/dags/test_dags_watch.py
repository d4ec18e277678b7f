"""New data starts a build: the trigger on the real command line, over a folder."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path

import pytest

from autoglm_airflow.watch import RAW, NewDataTrigger

ROOT = Path(__file__).parents[2]


class EnoughError(Exception):
    pass


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    checkout, raw = tmp_path / "checkout", tmp_path / "checkout" / "raw"
    raw.mkdir(parents=True)
    (checkout / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(checkout))
    monkeypatch.setenv("AUTOGLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AUTOGLM__FLOW__LOCATION", "raw")
    return raw


async def fired(trigger: NewDataTrigger, times: int, between: list[tuple[Path, str]]) -> list[str]:
    """The listings of the next `times` events; after each a file of `between` is written."""
    found = []
    async with aclosing(trigger.run()) as events:
        async for event in events:
            found.append(event.payload["listing"])
            if len(found) == times:
                break
            path, text = between[len(found) - 1]
            path.write_text(text)
    return found


class Bounded(NewDataTrigger):
    """Looks three times and no more."""

    looks = 0

    async def _listing(self) -> str | None:
        self.looks += 1
        if self.looks > 3:
            raise EnoughError
        return await super()._listing()


def test_it_fires_for_what_is_there_and_for_what_comes_and_remembers_it(raw: Path) -> None:
    (raw / "a.jsonl").write_text('{"text": "one"}\n')
    trigger = NewDataTrigger(poll_seconds=0.05)
    kept = raw.parents[1] / "home" / "airflow" / "raw-listing"
    assert not kept.parent.exists(), "the image makes no folder"
    first, second = asyncio.run(fired(trigger, 2, [(raw / "b.jsonl", '{"text": "two"}\n')]))
    assert kept.read_text() == first
    assert first != second
    # The second was not taken to its end: a new triggerer fires for it again, and for nothing after that.
    assert asyncio.run(fired(trigger, 1, [])) == [second]
    kept.write_text(second)
    with pytest.raises(EnoughError):
        asyncio.run(fired(Bounded(poll_seconds=0.05), 1, []))


def test_a_location_that_cannot_be_listed_is_logged_and_asked_again(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    trigger = Bounded(poll_seconds=0.05)
    monkeypatch.setattr(trigger.log, "warning", lambda text, *values: said.append(text % values))
    monkeypatch.setenv("AUTOGLM__FLOW__LOCATION", "nowhere")
    with pytest.raises(EnoughError):
        asyncio.run(fired(trigger, 1, []))
    assert len(said) == 3 and all("does not exist" in line for line in said)


def test_the_asset_survives_airflows_serialisation() -> None:
    [watcher] = RAW.watchers
    name, arguments = watcher.trigger.serialize()
    assert (name, json.loads(json.dumps(arguments))) == ("autoglm_airflow.watch.NewDataTrigger", {"poll_seconds": 30.0})
