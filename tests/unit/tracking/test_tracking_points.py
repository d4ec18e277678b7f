"""Metrics reach MLflow each once, whatever dies on the way (threats F23)."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from autoglm_ops.errors import Tampered, TryAgain
from autoglm_ops.tracking.mlflow import LiveRun, connect
from autoglm_ops.tracking.points import Courier, Point, PointSpool, deliver, waiting
from autoglm_ops.tracking.textfile import write_textfile


class Server:
    """Keeps one row for equal (key, step), as MLflow does; dies before or after it kept something, at random."""

    def __init__(self, seed: int) -> None:
        self.rows: Counter[tuple[str, int]] = Counter()
        self._random = random.Random(seed)

    def send(self, points: Sequence[Point]) -> None:
        if self._random.random() < 0.3:
            raise TryAgain("away")
        for point in points:
            if self._random.random() < 0.02:
                raise TryAgain("died on the way")
            for key in point.values:
                self.rows[key, point.step] = 1
        if self._random.random() < 0.2:
            raise TryAgain("died before it answered")


def test_nothing_is_lost_and_nothing_doubled_over_200_deaths(tmp_path: Path) -> None:
    server, failures = Server(1), 0
    spool = PointSpool(tmp_path / "metrics.spool")
    step = 0
    while failures < 200:
        for _ in range(5):
            step += 1
            spool.append(step, {"loss": 1.0 / step, "norm": 2.0}, at=step)
        try:
            deliver(spool.path, server.send, batch=7)
        except TryAgain:
            failures += 1
    spool.close()
    while waiting(spool.path):
        try:
            deliver(spool.path, server.send, batch=7)
        except TryAgain:
            continue
    assert server.rows == {(key, at): 1 for key in ("loss", "norm") for at in range(1, step + 1)}


def test_a_killed_writer_leaves_whole_records_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "metrics.spool"
    code = (
        f"from autoglm_ops.tracking.points import PointSpool; from pathlib import Path; import itertools\n"
        f"s = PointSpool(Path({str(path)!r}))\nfor n in itertools.count(1): s.append(n, {{'loss': float(n)}}, n)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 30
    while (not path.exists() or path.stat().st_size < 20_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    with path.open("ab") as file:  # and the disk tore the last one
        file.write(b"\0\0\0\x20half")
    spool = PointSpool(path)
    steps = max(step for step, _ in spool.seen)
    for step in range(steps - 3, steps + 3):  # a run that is continued reports some steps again
        spool.append(step, {"loss": -1.0}, at=9.0)
    spool.close()
    got: list[Point] = []
    assert deliver(path, got.extend) == steps + 2
    assert [point.step for point in got] == list(range(1, steps + 3))


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    spool = PointSpool(tmp_path / "metrics.spool")
    for step in range(3):
        spool.append(step, {"loss": 1.0}, at=1)
    spool.close()
    data = bytearray(spool.path.read_bytes())
    data[12] ^= 1
    spool.path.write_bytes(bytes(data))
    with pytest.raises(Tampered, match="byte 0"):
        deliver(spool.path, lambda points: None)


def test_mlflow_keeps_each_point_once(tmp_path: Path) -> None:
    spool = PointSpool(tmp_path / "metrics.spool")
    for step in (1, 2, 3):
        spool.append(step, {"loss": 3.0 - step, "gradient_norm": 1.0}, at=1_700_000_000 + step)
    spool.close()
    first = LiveRun(None, tmp_path, "tests", "launch-x", {"a": "1"})
    deliver(spool.path, first.send)
    spool.path.with_suffix(".delivered").unlink()  # it died before it noted
    with Courier(spool.path, LiveRun(None, tmp_path, "tests", "launch-x", {"a": "1"}).send, seconds=60) as courier:
        pass
    assert courier.away == ""
    found = connect(None, tmp_path).get_metric_history(first.run_id, "loss")
    assert [(metric.step, metric.value) for metric in found] == [(1, 2.0), (2, 1.0), (3, 0.0)]
    assert len(connect(None, tmp_path).search_runs(["1"])) == 1


def test_an_absent_mlflow_is_said_and_loses_nothing(tmp_path: Path) -> None:
    spool = PointSpool(tmp_path / "metrics.spool")
    spool.append(1, {"loss": 1.0}, at=1)
    spool.close()

    def away(points: Sequence[Point]) -> None:
        raise TryAgain("MLflow does not answer")

    with Courier(spool.path, away, seconds=60) as courier:
        pass
    assert "does not answer" in courier.away
    assert waiting(spool.path) == 1


def test_the_text_file_is_what_a_scrape_takes(tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    write_textfile(tmp_path / "metrics.prom", 'a "run"', {"loss": 1.5, "restarts": 2.0, "unknown": 1.0, "mfu": float("nan")})
    families = {family.name: family for family in text_string_to_metric_families((tmp_path / "metrics.prom").read_text())}
    assert families.keys() == {"autoglm_train_loss", "autoglm_train_restarts"}
    assert families["autoglm_train_loss"].samples[0].labels == {"run": 'a "run"'}
    assert families["autoglm_train_loss"].samples[0].value == 1.5
