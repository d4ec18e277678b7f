"""The shards of a dataset's build as jobs through the store: the same dataset, done once, and said clearly where it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from s3_server import BUCKET, serve_s3
from shard_build import ROWS, build, checkout, corpus, tables

from autoglm_ops.cli import data as commands
from autoglm_ops.cli.data import Phase
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.settings import load
from autoglm_ops.stages import dataset, dataset_away

AWAY = {"rehearse": True, "stages": ["dataset"]}


def test_shards_as_jobs_make_the_same_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without what each job would compile anew, which takes longer than the rest; the test below and the one on Slurm have it."""
    raw = tables(tmp_path / "raw")
    flow = {"steps": [], "dedup": {"enabled": False}}
    here = build(checkout(tmp_path / "here", flow, {}), raw, monkeypatch)
    assert "attempt 1" not in capfd.readouterr().err
    away = build(checkout(tmp_path / "away", flow, AWAY), raw, monkeypatch, width=2)
    assert capfd.readouterr().err.count("attempt 1: succeeded") == 4, "two shards are read and written"
    assert away.digest == here.digest
    assert away.seen == away.kept == 2 * ROWS


@pytest.mark.slow
def test_caps_copies_and_protected_texts_go_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = corpus(tmp_path / "raw")
    (tmp_path / "test.txt").write_text(raw.joinpath("b.jsonl").read_text().splitlines()[7].split('"')[3] + "\n")
    flow = {"protect": [str(tmp_path / "test.txt")], "source_cap": 1000}
    here = build(checkout(tmp_path / "here", flow, {}), raw, monkeypatch)
    away = build(checkout(tmp_path / "away", flow, AWAY), raw, monkeypatch, width=2)
    assert away.digest == here.digest
    assert away.dropped["contaminated"] == 1 and away.dropped["duplicate"] == 50 and away.dropped["source-cap"] > 0


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], str]]:
    """A real S3 server, whose keys jobs are given as their team's secrets; puts a folder's files there and says where they are."""
    (tmp_path / "s3").mkdir()
    with serve_s3(tmp_path / "s3") as server:
        for name, value in server.items():
            monkeypatch.setenv(name, value)

        def put(folder: Path) -> str:
            client = boto3.client("s3")
            for path in folder.iterdir():
                client.put_object(Bucket=BUCKET, Key=f"raw/{path.name}", Body=path.read_bytes())
            return f"s3://{BUCKET}/raw"

        yield put


def in_a_bucket(tmp_path: Path) -> dict[str, object]:
    """As a team has it whose jobs see no disk of this machine; what one compiled the next one finds."""
    compiled = {
        "NUMBA_CACHE_DIR": str(tmp_path / "numba"),
        "NUMBA_CACHE_LOCATOR_CLASSES": "autoglm_ops.data.kernels.BySource",
    }
    return {**AWAY, "secrets": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "environment": compiled}


@pytest.mark.slow
def test_the_shards_of_a_bucket_are_read_by_their_jobs(
    bucket: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And by nobody before: a job's input is the plan, not the text."""
    raw = tables(tmp_path / "raw")
    location, flow = bucket(raw), {"steps": [], "dedup": {"enabled": False}}
    here = build(checkout(tmp_path / "here", flow, {}), location, monkeypatch)
    monkeypatch.setenv("AUTOGLM__STORE__URI", f"s3://{BUCKET}/store")
    away = build(checkout(tmp_path / "away", flow, in_a_bucket(tmp_path)), location, monkeypatch, width=2)
    said = capfd.readouterr().err
    assert said.count("attempt 1: succeeded") == 4 and "test-secret" not in said
    assert away.digest == here.digest and away.seen == away.kept == 2 * ROWS
    stored = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="store/")["Contents"]
    assert not [entry["Key"] for entry in stored if entry["Key"].endswith(("/a.parquet", "/b.parquet"))]


@pytest.mark.slow
def test_ranges_of_an_object_are_shards_of_their_own(
    bucket: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a job is not sent of a file of this machine, it asks a bucket for."""
    raw = corpus(tmp_path / "raw")
    (raw / "b.jsonl").unlink()
    (raw / "a.jsonl").write_text("".join((raw / "a.jsonl").read_text().replace("ship", f"boat {copy}") for copy in range(3)))
    location, flow = bucket(raw), {"dedup": {"enabled": False}}
    here = build(checkout(tmp_path / "here", flow, {}), location, monkeypatch)
    monkeypatch.setenv("AUTOGLM__STORE__URI", f"s3://{BUCKET}/store")
    away = build(checkout(tmp_path / "away", flow, in_a_bucket(tmp_path)), location, monkeypatch, width=2)
    assert away.digest == here.digest and (away.seen, away.quarantined) == (3 * ROWS + 3, {"bad-json": 3})
    assert capfd.readouterr().err.count("attempt 1: succeeded") == 4, "two ranges are read and written"


def planned(root: Path, raw: Path, patch: pytest.MonkeyPatch) -> Path:
    patch.setenv("AUTOGLM_CHECKOUT", str(root))
    return dataset.open_build(load(root / "params.yaml", environ={}), str(raw), root / ".autoglm", root)


def test_a_task_that_is_done_sends_nothing_and_a_changed_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    raw, root = tables(tmp_path / "raw"), checkout(tmp_path / "w", {"steps": [], "dedup": {"enabled": False}}, AWAY)
    work = planned(root, raw, monkeypatch)
    (work / "read" / "000000").mkdir(parents=True)
    commands.task(work.name, Phase.READ, 0)
    assert not (root / ".autoglm" / "store").exists()
    with (raw / "b.parquet").open("ab") as file:
        file.write(b"one more")
    with pytest.raises(Refused, match=r"read 1 of build-.*its log says why"):
        commands.task(work.name, Phase.READ, 1)
    assert "when it was listed; list the data again" in capfd.readouterr().err


def test_a_range_of_a_local_file_stays_here_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = corpus(tmp_path / "raw")
    (raw / "a.jsonl").write_text((raw / "a.jsonl").read_text() * 4)
    root = checkout(tmp_path / "w", {}, AWAY)
    work = planned(root, raw, monkeypatch)
    with pytest.raises(UsageError, match="put the raw text into a bucket"):
        commands.task(work.name, Phase.READ, 0)


def test_what_compares_all_shards_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = checkout(tmp_path / "w", {}, AWAY)
    work = planned(root, corpus(tmp_path / "raw"), monkeypatch)
    settings = load(root / "params.yaml", environ={})
    gone = [
        phase for phase in ("read", "match", "verify", "settle", "weigh", "write") if dataset_away.leaves(phase, work, settings)
    ]
    assert gone == ["read", "write"], "without caps there is nothing to weigh"
