"""A build out of a real bucket: the dataset of the same files in a folder, or none at all (F17)."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET

from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.contracts.record import digest_tree
from autoglm_ops.data.build.plan import plan
from autoglm_ops.data.build.whole import run, task
from autoglm_ops.data.readers import Limits
from autoglm_ops.errors import Tampered, TryAgain
from autoglm_ops.store import s3 as bucket

sys.path.append(str(Path(__file__).parents[1] / "unit" / "data"))  # the corpus that the builder's own tests are made of
import build_corpus

boto3 = pytest.importorskip("boto3")


def build(location: str, home: Path, jobs: int = 1) -> tuple[BuiltDataset, Path]:
    work = plan(location, build_corpus.recipe(), home / "scratch", Limits())
    made = run(work, home / "datasets", Limits(), jobs, lambda *_: None)
    return made, home / "datasets" / made.digest


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    build_corpus.write(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def uploaded(s3: str, raw: Path, tmp_path: Path) -> str:
    client = boto3.client("s3")
    for path in sorted(raw.iterdir()):
        client.upload_file(str(path), BUCKET, f"{tmp_path.name}/{path.name}")
    return f"{s3}/{tmp_path.name}"


def test_the_bucket_gives_the_folders_dataset_to_the_last_byte(uploaded: str, raw: Path, tmp_path: Path) -> None:
    here, folder = build(str(raw), tmp_path / "here")
    there, other = build(uploaded, tmp_path / "there", jobs=2)
    assert there == here and len(here.parts) > 2
    assert digest_tree(other) == digest_tree(folder)


def test_an_object_replaced_under_the_build_ends_it_and_the_next_build_reads_the_new_one(
    uploaded: str, raw: Path, tmp_path: Path
) -> None:
    work = plan(uploaded, build_corpus.recipe(), tmp_path / "scratch", Limits())
    task(work, "read", 0, Limits())
    swapped = (raw / "c.jsonl").read_bytes().replace(b'"s1"', b'"s2"')  # as long as before: only its ETag tells
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/c.jsonl", Body=swapped)
    with pytest.raises(Tampered, match=r"c\.jsonl was replaced or removed since it was listed"):
        run(work, tmp_path / "datasets", Limits(), 1, lambda *_: None)
    assert not (tmp_path / "datasets").exists()
    (raw / "c.jsonl").write_bytes(swapped)
    assert build(uploaded, tmp_path)[0] == build(str(raw), tmp_path / "here")[0]


def test_an_object_removed_under_the_build_ends_it(uploaded: str, tmp_path: Path) -> None:
    work = plan(uploaded, build_corpus.recipe(), tmp_path / "scratch", Limits())
    boto3.client("s3").delete_object(Bucket=BUCKET, Key=f"{tmp_path.name}/b.jsonl.gz")
    with pytest.raises(Tampered, match=r"b\.jsonl\.gz was replaced or removed"):
        run(work, tmp_path / "datasets", Limits(), 1, lambda *_: None)
    assert not (tmp_path / "datasets").exists()


@pytest.fixture
def cut_short(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the next `times` replies of the server lose the second half of their bodies."""
    real = bucket._client

    def arm(times: int) -> None:
        left = [times]

        class Client:
            def __init__(self) -> None:
                self._client = real()

            def __getattr__(self, name: str) -> Any:
                return getattr(self._client, name)

            def get_object(self, **arguments: Any) -> Any:
                answer = self._client.get_object(**arguments)
                if not left[0]:
                    return answer
                left[0] -= 1
                body = answer["Body"].read()
                return {**answer, "Body": io.BytesIO(body[: len(body) // 2])}

        monkeypatch.setattr(bucket, "_client", Client)

    return arm


def test_bodies_that_came_short_are_asked_for_again(
    uploaded: str, raw: Path, tmp_path: Path, cut_short: Callable[[int], None]
) -> None:
    cut_short(4)
    assert build(uploaded, tmp_path / "there")[0] == build(str(raw), tmp_path / "here")[0]


def test_bodies_that_always_come_short_make_no_dataset_and_the_same_build_goes_on_later(
    uploaded: str, raw: Path, tmp_path: Path, cut_short: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(1_000_000)
    with monkeypatch.context() as brief:
        brief.setattr(bucket.BucketReader.__init__, "__defaults__", (0.3,))  # seconds of patience
        with pytest.raises(TryAgain, match="does not answer"):
            build(uploaded, tmp_path)
    assert not (tmp_path / "datasets").exists()
    cut_short(0)
    assert build(uploaded, tmp_path)[0] == build(str(raw), tmp_path / "here")[0]
