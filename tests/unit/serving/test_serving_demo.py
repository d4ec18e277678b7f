"""The demo's client against a real server: every text asked once, every label with its reader, the liar found out."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from serving_parts import KEY, ByLength, Shelf, made, running

from autoglm_ops.stages.faults import reported
from autoglm_ops.stages.replay import ASK, Client, Traffic


def test_a_days_traffic_goes_out_and_its_labels_come_back(tmp_path: Path) -> None:
    texts = tuple(f"text {'x' * (number % 7)} {number}" for number in range(500))
    truth = tuple("pos" if len(text) % 2 == (number % 11 == 0) else "neg" for number, text in enumerate(texts))
    batch = Traffic(date(2026, 1, 8), texts, truth)
    with made(tmp_path, Shelf(v1=ByLength())) as parts, running(parts) as url:
        client = Client(url, KEY)
        assert client.version() == 1
        answers, ids, version = client.classify(batch)
        assert (len(answers), len(set(ids)), version) == (500, 500, 1)
        assert client.feedback(ids, reported(truth, 8, "hostile-reporter", 7)) == 500
        client.close()
        requests = parts.memory
        assert set(requests.distrusted()) == {("2026-01-08", "reader-3")}
        assert sum(row.requests for row in requests.served()) >= 500 // ASK - 1
        assert len(requests.labelled(without=requests.distrusted())) == 450
