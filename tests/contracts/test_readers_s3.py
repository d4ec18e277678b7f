"""Documents out of a real S3 server: the same as from a folder, in ranges, through faults, and never of another object (F17)."""

from __future__ import annotations

import gzip
import io
import json
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from s3_server import BUCKET

from autoglm_ops.data.readers import Limits, Rejected, plan, read, survey
from autoglm_ops.data.rows import Shape
from autoglm_ops.errors import AutoGLMError, BadData, BudgetSpent, Tampered, TryAgain, UsageError
from autoglm_ops.store.ranges import BucketReader
from autoglm_ops.store.s3 import open_reader

boto3 = pytest.importorskip("boto3")
SHAPE = Shape({name: name for name in ("text", "label", "timestamp", "id", "source")}, date(2026, 1, 1))
LINES = b"".join(json.dumps({"text": f"row {n} " + "x" * 50}).encode() + b"\n" for n in range(3000))


@pytest.fixture
def client(s3: str) -> Any:
    return boto3.client("s3")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "deep").mkdir(parents=True)
    (data / "a.jsonl").write_bytes(LINES)
    (data / "deep" / "b.jsonl.gz").write_bytes(gzip.compress(LINES, mtime=0))
    (data / "c.txt").write_bytes(b"one\ntwo\nthree")
    (data / "notes.md").write_bytes(b"no data")
    pl.DataFrame({"text": [f"p {n}" for n in range(100)]}).write_parquet(data / "d.parquet")
    return data


@pytest.fixture
def uploaded(client: Any, folder: Path, tmp_path: Path) -> str:
    for path in sorted(folder.rglob("*.*")):
        client.upload_file(str(path), BUCKET, f"{tmp_path.name}/{path.relative_to(folder).as_posix()}")
    client.put_object(Bucket=BUCKET, Key=f"{tmp_path.name}-other/z.jsonl", Body=b"{}")
    return f"s3://{BUCKET}/{tmp_path.name}"


def everything(location: str, most: int, limits: Limits | None = None) -> list[Any]:
    limits = limits or Limits()
    shards = plan(survey(location, limits).blobs, most)
    items = (item for shard in shards for item in read(shard, location, SHAPE, limits))
    return [row for item in items for row in ([item] if isinstance(item, Rejected) else item.rows())]


def test_a_bucket_reads_as_the_folder_does(uploaded: str, folder: Path) -> None:
    for most in (50_000, 1 << 30):
        assert everything(uploaded, most) == everything(str(folder), most)
    place = survey(uploaded, Limits())
    assert [blob.name for blob in place.blobs] == ["a.jsonl", "c.txt", "d.parquet", "deep/b.jsonl.gz"]
    assert place.ignored == 1


def test_the_location_may_be_one_object(uploaded: str, folder: Path) -> None:
    assert everything(f"{uploaded}/a.jsonl", 1 << 20) == everything(str(folder / "a.jsonl"), 1 << 20)


def test_an_object_that_was_replaced_or_removed_is_not_read(uploaded: str, client: Any, tmp_path: Path) -> None:
    limits = Limits()
    shards = plan(survey(f"{uploaded}/a.jsonl", limits).blobs, 1 << 30)
    client.put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/a.jsonl", Body=LINES.replace(b"row", b"ROW"))
    with pytest.raises(Tampered, match="was replaced or removed since it was listed"):
        list(read(shards[0], f"{uploaded}/a.jsonl", SHAPE, limits))


class Faulty:
    """A real client whose first replies are errors, or bodies that end early."""

    def __init__(self, client: Any, faults: list[Any]) -> None:
        self._client, self._faults, self.calls = client, faults, 0

    def get_object(self, **arguments: Any) -> Any:
        self.calls += 1
        answer = self._client.get_object(**arguments)
        if not self._faults:
            return answer
        fault = self._faults.pop(0)
        if isinstance(fault, Exception):
            raise fault
        return {**answer, "Body": io.BytesIO(answer["Body"].read()[:fault])}


def test_a_range_is_asked_for_until_it_came_whole(uploaded: str, client: Any, tmp_path: Path) -> None:
    from botocore.exceptions import ClientError, IncompleteReadError

    slow = ClientError({"Error": {"Code": "SlowDown"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "GetObject")
    faulty = Faulty(client, [slow, 10, IncompleteReadError(actual_bytes=1, expected_bytes=2), 0])
    key = f"{tmp_path.name}/a.jsonl"
    (item,) = BucketReader(client, BUCKET, 10).listing(key)
    assert BucketReader(faulty, BUCKET, 10).read(item, 100, 5000) == LINES[100:5000]
    assert faulty.calls == 5


def test_retries_and_requests_have_budgets(uploaded: str, client: Any, tmp_path: Path) -> None:
    key = f"{tmp_path.name}/a.jsonl"
    (item,) = BucketReader(client, BUCKET, 10).listing(key)
    with pytest.raises(BudgetSpent, match="3 requests were sent"):
        BucketReader(Faulty(client, [1] * 9), BUCKET, 3).read(item, 0, 100)
    with pytest.raises(TryAgain, match="does not answer"):
        BucketReader(Faulty(client, [1] * 9), BUCKET, 99, budget=0.3).read(item, 0, 100)
    with pytest.raises(BudgetSpent):
        everything(uploaded, 20_000, Limits(requests=1))


def test_listings_go_on_page_by_page(client: Any, s3: str, tmp_path: Path) -> None:
    class Paged:
        def list_objects_v2(self, **arguments: Any) -> Any:
            return client.list_objects_v2(**arguments, MaxKeys=2)

    for number in range(5):
        client.put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/{number}.txt", Body=b"a\n")
    found = list(BucketReader(Paged(), BUCKET, 10).listing(f"{tmp_path.name}/"))
    assert [item.key[-5:] for item in found] == [f"{number}.txt" for number in range(5)]


def test_nothing_there_a_wrong_bucket_and_a_wrong_key_are_said(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadData, match="holds no file"):
        survey(f"{s3}/no/such/prefix", Limits())
    with pytest.raises(UsageError, match="names no bucket"):
        survey("s3://", Limits())
    with pytest.raises(AutoGLMError, match="no-such-bucket-here"):
        survey("s3://no-such-bucket-here/x", Limits())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    with pytest.raises(UsageError, match="access denied") as caught:
        list(open_reader(BUCKET, 5).listing(""))
    assert "canary-secret" not in str(caught.value)


def test_of_a_hub_dataset_only_its_data_is_read(client: Any, tmp_path: Path) -> None:
    for name in ("README.md", "notes.jsonl", "data/train.jsonl"):
        client.put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/{name}", Body=LINES)
    where = f"s3://{BUCKET}/{tmp_path.name}"
    assert [blob.name for blob in survey(where, Limits()).blobs] == ["data/train.jsonl"]
    client.delete_object(Bucket=BUCKET, Key=f"{tmp_path.name}/README.md")
    assert [blob.name for blob in survey(where, Limits()).blobs] == ["data/train.jsonl", "notes.jsonl"]
