"""One run that publishes int8, from training to an answer: what is judged, registered and served is that one model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from newcomer import Checkout, make_checkout

from autoglm_ops.contracts.record import digest_path
from autoglm_ops.contracts.release import EvaluationReport
from autoglm_ops.contracts.training import TrainingRecord
from autoglm_ops.stages import serving
from autoglm_ops.training.inference import Classifier

pytestmark = pytest.mark.slow  # in `make nightly`; in CI a run by REST publishes int8, too (test_airflow_story)
TEXTS = ["房间很干净", "糟", "书不错，值得一看", "电脑坏了" * 10, "abc", "好 " * 200]


@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = make_checkout(tmp_path_factory.mktemp("int8") / "checkout")
    said = checkout.call("run", "--set", "train.quantization=int8", "--set", "tune.enabled=false")
    assert "int8: " in said
    return checkout


@pytest.fixture(scope="module")
def root(cycle: Checkout) -> Path:
    [found] = [path.parent for path in cycle.home.glob("runs/*/.workspace.json")]
    return found


def test_the_record_says_what_int8_cost_and_the_gate_judged_that_model(cycle: Checkout, root: Path) -> None:
    made = TrainingRecord.read(root / "out" / "train" / "training.json").quantised
    assert made is not None and made.bytes_after < 0.4 * made.bytes_before and abs(made.before - made.after) < 0.05
    model = root / "out" / "train" / "model"
    report = EvaluationReport.read(root / "out" / "evaluate" / "evaluation.json")
    assert report.model_bytes == sum(path.stat().st_size for path in model.iterdir()) < 2 * made.bytes_after
    summary = json.loads((cycle.home / "latest" / "summary.json").read_text())
    assert summary["training"]["quantised"] == made.model_dump(mode="json")
    assert "published as" in (cycle.home / "latest" / "report.html").read_text()
    assert json.loads((root / "completed" / "register.json").read_text())["facts"]["digest"] == digest_path(model)


@pytest.fixture
def server(cycle: Checkout) -> Iterator[httpx.Client]:
    process = cycle.start("serve", "--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    url = next(word for word in line.split() if word.startswith("http")).rstrip(";")
    key = serving.key_path(cycle.home).read_text().strip()
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=60) as http:
        yield http
    process.kill()
    process.communicate()


def test_the_server_answers_as_the_classifier_does(root: Path, server: httpx.Client) -> None:
    model = Classifier.load(root / "out" / "train" / "model")
    answer = server.post("/v1/classify", json={"input": TEXTS}).json()
    for row, scores in zip(answer["results"], model.predict(TEXTS, 1), strict=True):
        assert [row["scores"][label] for label in model.labels] == pytest.approx(list(scores), abs=1e-4)


def test_the_run_built_again_from_its_commit_is_identical(cycle: Checkout, root: Path) -> None:
    lines = cycle.call("replay", root.name, "--json").splitlines()
    [said] = [json.loads(line) for line in lines if '"identical"' in line]
    assert said["identical"] is True
