"""A new object in a bucket starts a build: the trigger that Airflow's triggerer runs, on the real command line and a real S3 server."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import boto3
import pytest
from s3_server import BUCKET

from autoglm_airflow.watch import NewDataTrigger

ROOT = Path(__file__).parents[2]


class Bounded(NewDataTrigger):
    """Looks five times and no more, so that an event that does not come fails the test."""

    looks = 0

    async def _listing(self) -> str | None:
        self.looks += 1
        assert self.looks <= 5, "no event"
        return await super()._listing()


async def fired(prefix: str) -> list[str]:
    """The listings of two events: of what is there, and of what is put there then."""
    found = []
    async with aclosing(Bounded(poll_seconds=0.05).run()) as events:
        async for event in events:
            found.append(event.payload["listing"])
            if len(found) == 2:
                break
            boto3.client("s3").put_object(Bucket=BUCKET, Key=f"{prefix}/b.jsonl", Body=b'{"text": "two"}\n')
    return found


def test_an_object_that_is_put_into_the_bucket_is_an_event(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = tmp_path.name
    (tmp_path / "home" / "airflow").mkdir(parents=True)
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    for name, value in {"CHECKOUT": str(tmp_path), "HOME": str(tmp_path / "home"), "_FLOW__LOCATION": f"{s3}/{prefix}"}.items():
        monkeypatch.setenv(f"AUTOGLM_{name}", value)
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"{prefix}/a.jsonl", Body=b'{"text": "one"}\n')
    first, second = asyncio.run(fired(prefix))
    assert first != second
