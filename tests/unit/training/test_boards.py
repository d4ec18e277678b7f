"""TensorBoard and Weights & Biases: what a real training leaves is read back, and says what the metrics record says."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoglm_ops.errors import UsageError
from autoglm_ops.training.callbacks import tensorboard, wandb
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.callbacks.catalog import made
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.trainer import AutoGLMTrainer

NAMES = ("loss", "learning_rate", "gradient_norm")
IDS = (torch.arange(16)[:, None] + torch.arange(8)[None]) % 24
BATCHES = [{"input_ids": IDS[row : row + 4]} for row in range(0, 16, 4)]


class _Rank0:
    rank, ranks, resumable = 0, 1, True


class _Dies(Callback):
    def on_step(self, progress: Progress) -> None:
        if progress.step == 6:
            raise KeyboardInterrupt


def train(folder: Path, *more: Callback, resume: bool = False, steps: int = 8) -> dict[str, dict[int, float]]:
    """A real run with both records of its steps; returns what metrics.jsonl says: name -> step -> value."""
    torch.set_num_threads(1)
    tiny = {
        "model_type": "glm", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "head_dim": 8, "intermediate_size": 32, "vocab_size": 24, "pad_token_id": 0,
    }  # fmt: skip
    config = {"model": tiny, "max_steps": steps, "epochs": 9, "evaluations": 2, "out": folder}
    heard = [*more, made("json-lines", {}, _Rank0(), folder)]  # type: ignore[arg-type]
    AutoGLMTrainer(config, callbacks=heard).fit(BATCHES, BATCHES, resume=resume)
    return _recorded(folder)


def _recorded(folder: Path) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {name: {} for name in (*NAMES, "validation/loss")}
    for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        names = ["validation/loss"] if "metric" in line else NAMES
        for name in names:
            found[name][line["step"]] = line["value" if "metric" in line else name]
    return found


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    found = {tag.removeprefix("train/"): read.Scalars(tag) for tag in read.Tags()["scalars"]}
    values = {name: {event.step: event.value for event in events} for name, events in found.items()}
    assert {name: len(events) for name, events in found.items()} == {name: len(steps) for name, steps in values.items()}
    return values


def test_tensorboard_reads_back_what_the_metrics_record_says(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    record = train(tmp_path, made("tensorboard", {}, _Rank0(), tmp_path))  # type: ignore[arg-type]
    assert len(record["loss"]) == 8
    assert len(record["validation/loss"]) == 2
    assert scalars(tmp_path / "tensorboard") == _float32(record)


def test_tensorboard_shows_a_continued_run_as_one(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = {"folder": str(tmp_path / "events")}
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, made("tensorboard", board, _Rank0(), tmp_path), _Dies())  # type: ignore[arg-type]
    record = train(tmp_path, made("tensorboard", board, _Rank0(), tmp_path), resume=True)  # type: ignore[arg-type]
    assert scalars(tmp_path / "events") == _float32(record)


def _float32(record: dict[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """Event files keep four bytes of a value."""
    return {name: {step: float(np.float32(value)) for step, value in values.items()} for name, values in record.items()}


def test_wandb_writes_an_offline_run_and_reports_to_nobody(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    board = made("wandb", {"project": "mine"}, _Rank0(), tmp_path)  # type: ignore[arg-type]
    try:
        record = train(tmp_path, board, _ServiceIsQuiet())
    finally:
        import wandb as package

        package.teardown()
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    project, history = _history(path)
    assert project == "mine"
    assert history == record


class _ServiceIsQuiet(Callback):
    """The service beside the process is the one that could reach out: it was started with its own reports switched off."""

    def on_step(self, progress: Progress) -> None:
        services = [words for words in map(_words, Path("/proc").glob("[0-9]*/cmdline")) if words[0].endswith("wandb-core")]
        assert services
        assert all("--no-observability" in words for words in services)


def _words(cmdline: Path) -> list[str]:
    try:
        return cmdline.read_text().split("\0")
    except OSError:  # ended meanwhile
        return [""]


def _history(path: Path) -> tuple[str, dict[str, dict[int, float]]]:
    from wandb.proto.wandb_internal_pb2 import Record

    project, found = "", {name: {} for name in (*NAMES, "validation/loss")}  # type: dict[str, dict[int, float]]
    for body in _log(path.read_bytes()):
        record: Any = Record.FromString(body)
        project = record.run.project or project
        row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for name in found:
            if name in row:
                found[name][int(row["_step"])] = row[name]
    return project, found


def _log(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log (doc/log_format.md of LevelDB) behind W&B's seven bytes: blocks of 32 KiB, pieces of crc, length and type."""
    assert data[:4] == b":W&B"
    place, parts = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield parts
            parts = b""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_no_call_of_a_run_leaves_the_machine(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    body = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_boards as t\n"
        "out = Path(sys.argv[2]); t.train(out, t.made(sys.argv[3], {}, t._Rank0(), out))"
    )
    trace = tmp_path / "trace"
    traced = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=connect,sendto", sys.executable, "-c", body]
    subprocess.run([*traced, str(Path(__file__).parent), str(tmp_path / "out"), name], check=True, timeout=300)
    assert [line for line in trace.read_text().splitlines() if "AF_INET" in line and "127.0.0.1" not in line] == []


@pytest.mark.parametrize("module", [tensorboard, wandb])
def test_what_is_not_installed_is_said(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    name = module.__name__.rpartition(".")[2]
    with pytest.raises(UsageError, match=f"the callback {name} needs the package {name}; pip install {name}"):
        made(name, {}, _Rank0(), tmp_path)  # type: ignore[arg-type]
