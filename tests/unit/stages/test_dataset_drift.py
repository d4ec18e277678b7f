"""A dataset against the version before it: what moved is noted, or refused where the suite says so; what did not is steady."""

from __future__ import annotations

import json
import random
from datetime import date
from pathlib import Path

import pytest

from autoglm_ops.contracts.flow import SuiteReport
from autoglm_ops.data.bundled import read
from autoglm_ops.data.rows import Row, Shape
from autoglm_ops.errors import BadData, SettingsError
from autoglm_ops.monitoring.drift import ks
from autoglm_ops.settings import Settings
from autoglm_ops.stages import dataset, dataset_lineage, dataset_suite

ROOT = Path(__file__).parents[3]
BOOKS = [f"第{n}章写得很好，人物的性格与时代的背景都讲得明明白白，值得再读一遍" for n in range(400)]
HOTELS = [f"房间{n}号，隔音差" for n in range(400)]


def built(home: Path, texts: list[str], suite: str | None = "expectations/documents.yaml") -> SuiteReport:
    raw = home / "raw.jsonl"
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = Settings.model_validate({"flow": {"steps": [], "dedup": {"enabled": False}, "suite": suite}})
    origin = ROOT if suite and suite.startswith("expectations") else home
    check = dataset_suite.check(settings, origin, home, str(raw))
    work = dataset.open_build(settings, str(raw), home, home)
    made = dataset.build(settings, work, dataset.Place(home, origin, check), 1, lambda *_: None)
    found = dataset_suite.report(home / "datasets" / made.digest)
    assert found is not None
    return found


def test_the_first_version_has_nothing_before_it_and_the_next_is_compared_with_it(tmp_path: Path) -> None:
    first = built(tmp_path, BOOKS)
    assert (first.against, first.drift) == (None, ())
    second = built(tmp_path, [*BOOKS, *BOOKS[::4]])
    assert second.against == first.dataset
    assert [(item.feature, item.kind, item.drifted) for item in second.drift] == [
        ("length", "psi", False),
        ("length", "ks", False),
        ("characters", "kl", False),
    ]
    third = built(tmp_path, HOTELS)
    assert third.against == second.dataset, "the newest, not the first"
    assert third.verdict == "accepted" and all(item.drifted for item in third.drift)
    assert "drifted" in (tmp_path / "datasets" / third.dataset / "_validation.html").read_text()


def test_drift_refuses_where_the_suite_says_so_and_what_was_published_stays(tmp_path: Path) -> None:
    count = "documents:\n  - {type: expect_table_row_count_to_be_between, min_value: 1}\n"
    (tmp_path / "mine.yaml").write_text(f"{count}drift:\n  - {{feature: characters, kind: kl, threshold: 0.1, refuse: true}}\n")
    kept = built(tmp_path, BOOKS, "mine.yaml")
    with pytest.raises(BadData, match="drifted: kl of characters is") as caught:
        built(tmp_path, HOTELS, "mine.yaml")
    assert caught.value.exit_code == 3
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == [kept.dataset]
    assert dataset_lineage.provenance(tmp_path / "datasets" / kept.dataset)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{feature: characters, kind: ks, threshold: 1}", "ks of characters is not measured"),
        ("{feature: length, kind: psi}", "threshold"),
        ("{feature: length, kind: psi, threshold: {setting: pis}}", "no setting 'pis'"),
        ("drift", "drift"),
    ],
)
def test_a_wrong_entry_is_said_before_any_work(tmp_path: Path, entry: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"documents:\n  - {{type: expect_table_row_count_to_be_between, min_value: 1}}\ndrift:\n  - {entry}\n"
    )
    with pytest.raises(SettingsError, match=said):
        built(tmp_path, BOOKS, "mine.yaml")
    assert not (tmp_path / "scratch").exists()


def test_two_draws_of_the_same_real_reviews_are_steady_more_often_than_the_level_asks() -> None:
    """False alarms of the Kolmogorov-Smirnov limit alone (no least distance): at most the share alpha, here with five sigma of room."""
    shape = Shape({name: name for name in ("text", "label", "timestamp", "id", "source")}, date(2026, 1, 1))
    lengths = [len(row.text or "") for row in read(shape, 1) if isinstance(row, Row)]
    chance, alpha, draws, alarms = random.Random(5), 0.05, 400, 0
    for _ in range(draws):
        drawn = chance.sample(lengths, 1200)
        alarms += ks(drawn[:500], drawn[500:], least=0.0001, alpha=alpha).drifted
    assert alarms <= draws * alpha + 5 * (draws * alpha * (1 - alpha)) ** 0.5
    moved = ks(lengths[:500], [2 * length for length in lengths[500:1000]], least=0.1, alpha=0.001)
    assert moved.drifted and moved.value > 0.2
