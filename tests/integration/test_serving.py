"""`autoglm serve` as a person starts it: real models, the MLflow registry, the artefact store, a process that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from autoglm_ops.cli.main import main
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import Classifier
from autoglm_ops.errors import Tampered, TryAgain, UsageError
from autoglm_ops.feedback.intake import Intake
from autoglm_ops.settings import Settings, load
from autoglm_ops.stages import releasing, serving
from autoglm_ops.store import open_store

ROOT = Path(__file__).parents[2]
TEXTS = ["房间很干净", "糟", "书不错，值得一看", "电脑坏了" * 10, "abc", "好 " * 200]


@dataclass(frozen=True)
class Shop:
    """A checkout with three registered versions, the first the champion."""

    checkout: Path
    home: Path
    folders: tuple[Path, ...]
    settings: Settings

    def environment(self) -> dict[str, str]:
        return {**os.environ, "AUTOGLM_HOME": str(self.home), "AUTOGLM_CHECKOUT": str(self.checkout), "OMP_NUM_THREADS": "1"}

    def champion(self, version: int) -> None:
        releasing.open_registry(self.settings, self.home).set_champion(version)


def tiny_model(folder: Path, seed: int) -> Path:
    """A published GLM that was never trained: its answers are arbitrary and always the same."""
    from autoglm_ops.data import tokenizer
    from autoglm_ops.training import artifact
    from autoglm_ops.training.models import ModelSpec, build

    words = tokenizer.train(TEXTS * 3, 64, 3)
    spec = ModelSpec(
        name="glm-tiny",
        folder=None,
        overrides={"hidden_size": 32, "layers": 1, "heads": 2, "dropout": 0.0},
        vocabulary=words.get_vocab_size(),
        pad_id=words.token_to_id("[PAD]") or 0,
        max_length=32,
        labels=("neg", "pos"),
    )
    staged = folder / f"staged{seed}"
    tokenizer.save(words, staged, 32)
    build(spec, seed).save_pretrained(staged)
    artifact.publish(
        staged, folder / f"model{seed}", architecture="GlmForSequenceClassification", labels=spec.labels, max_length=32
    )
    return folder / f"model{seed}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    from autoglm_ops.release.registry import RUN_KEY

    base = tmp_path_factory.mktemp("shop")
    shutil.copy(ROOT / "params.yaml", base / "params.yaml")
    settings, home = load(base / "params.yaml", environ={}), base / ".autoglm"
    folders = tuple(tiny_model(base, seed) for seed in (1, 2, 3))
    registry = releasing.open_registry(settings, home)
    for folder in folders:
        digest = open_store(None, home).put(folder)
        registry.register(digest, str(folder), "", {RUN_KEY: folder.name})
    registry.set_champion(1)
    return Shop(base, home, folders, settings)


@dataclass
class Serving:
    process: subprocess.Popen[str]
    http: httpx.Client
    started: float

    def version(self) -> int:
        return int(self.http.get("/v1/models").json()["data"][0]["version"])


@contextmanager
def started(shop: Shop, *options: str) -> Iterator[Serving]:
    """`autoglm serve` with these options, as a process of its own."""
    begin = time.monotonic()
    command = [sys.executable, "-m", "autoglm_ops", "serve", "--port", "0", "--set", "serving.refresh_seconds=0.2", *options]
    log = (shop.checkout / "server.log").open("w")
    process = subprocess.Popen(command, env=shop.environment(), stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "models:/autoglm@champion" in line, (shop.checkout / "server.log").read_text()
    url = next(word for word in line.split() if word.startswith("http")).rstrip(";")
    key = serving.key_path(shop.home).read_text().strip()
    assert key not in line
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=30) as http:
        yield Serving(process, http, time.monotonic() - begin)
    process.kill()
    process.wait()
    log.close()
    assert key not in (shop.checkout / "server.log").read_text(), "threat F28"


@pytest.fixture(scope="module")
def served(shop: Shop) -> Iterator[Serving]:
    with started(shop) as serving_now:
        yield serving_now


@pytest.fixture
def autoglm(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process: exit code, stdout, stderr."""
    for name, value in shop.environment().items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        return (int(end.value.code or 0), *capsys.readouterr())

    return run


def truth(shop: Shop, version: int) -> Classifier:
    from autoglm_ops.training.inference import Classifier as Trained

    return Trained.load(shop.folders[version - 1])


def eventually_version(served: Serving, version: int) -> bool:
    end = time.monotonic() + 15
    while time.monotonic() < end and served.version() != version:
        time.sleep(0.05)
    return served.version() == version


def test_answers_are_the_models_own(shop: Shop, served: Serving) -> None:
    answer = served.http.post("/v1/classify", json={"input": TEXTS}).json()
    assert (answer["model"], answer["version"]) == ("autoglm", 1)
    expected = truth(shop, 1).predict(TEXTS, 2)
    for row, scores in zip(answer["results"], expected, strict=True):
        assert [row["scores"][label] for label in ("neg", "pos")] == pytest.approx(list(scores), abs=1e-4)


def test_labels_come_back_and_out_again(autoglm: Callable[..., tuple[int, str, str]], served: Serving, tmp_path: Path) -> None:
    asked = served.http.post("/v1/classify", json={"input": TEXTS[:2], "ids": ["row-1", "row-2"], "timestamp": "2026-01-09"})
    predicted = [row["label"] for row in asked.json()["results"]]
    items = [{"id": "row-1", "label": predicted[0]}, {"id": "row-2", "label": "neg" if predicted[1] == "pos" else "pos"}]
    counts = served.http.post("/v1/feedback", json={"source": "desk", "items": items}).json()
    assert (counts["accepted"], counts["agreed"], counts["disagreed"]) == (2, 1, 1)
    status = json.loads(autoglm("feedback", "status", "--json")[1])
    day = next(day for day in status["days"] if day["day"] == "2026-01-09")
    assert (day["predictions"], day["labelled"], day["correct"], day["disputed"]) == (2, 2, 1, 0)
    assert [(source["source"], source["labels"]) for source in status["sources"]] == [("desk", 2)]
    code, _, _ = autoglm("feedback", "export", str(tmp_path / "rows.csv"), "--since", "2026-01-09", "--until", "2026-01-09")
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    assert code == 0 and lines[0] == "id,text,label,predicted,score,day,version,source,weight" and len(lines) == 3
    assert autoglm("feedback", "export", "--since", "soon")[0] == 2
    assert "disputed" in autoglm("feedback", "status")[1]


def test_an_alias_moved_in_mlflow_is_served_without_a_dropped_request(shop: Shop, served: Serving) -> None:
    stop, versions = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            answer = served.http.post("/v1/classify", json={"input": TEXTS[0]})
            assert answer.status_code == 200
            versions.append(answer.json()["version"])

    with ThreadPoolExecutor(3) as pool:
        workers = [pool.submit(ask) for _ in range(3)]
        shop.champion(2)
        assert eventually_version(served, 2)
        time.sleep(0.2)
        stop.set()
        for worker in workers:
            worker.result(10)
    assert set(versions) == {1, 2}


def test_a_tampered_model_is_refused_and_a_rollback_is_served(shop: Shop, served: Serving) -> None:
    stored = shop.home / "store" / digest_path(shop.folders[2]) / "model.safetensors"
    stored.chmod(0o644)
    data = bytearray(stored.read_bytes())
    data[-3] ^= 1
    stored.write_bytes(data)
    shop.champion(3)
    end = time.monotonic() + 10
    while served.http.get("/v1/models").json()["data"][0]["refused"] is None and time.monotonic() < end:
        time.sleep(0.05)
    model = served.http.get("/v1/models").json()["data"][0]
    assert (model["version"], model["refused"]["version"]) == (2, 3) and "sha256" in model["refused"]["reason"]
    assert 'autoglm_swap_failures_total{reason="tampered"} 1.0' in served.http.get("/metrics").text
    shop.champion(1)
    assert eventually_version(served, 1)


def test_a_port_in_use_is_one_message_and_exit_2(autoglm: Callable[..., tuple[int, str, str]], served: Serving) -> None:
    port = str(served.http.base_url.port)
    code, out, err = autoglm("serve", "--port", port)
    assert (code, out) == (2, "")
    assert f"port {port} on 127.0.0.1 is in use" in err and "Traceback" not in err


def test_a_killed_server_loses_no_answer_it_gave(shop: Shop, served: Serving) -> None:
    """Last: it ends the server. kill -9 comes while requests are under way."""
    answered: list[str] = []

    def ask(worker: int) -> None:
        for number in range(10_000):
            name = f"w{worker}-{number}"
            try:
                reply = served.http.post("/v1/classify", json={"input": TEXTS[number % 6], "ids": [f"{name}"]})
            except httpx.TransportError:
                return
            assert reply.status_code == 200
            answered.append(name)

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(ask, worker) for worker in range(4)]
        while len(answered) < 100:
            time.sleep(0.01)
        os.kill(served.process.pid, signal.SIGKILL)
        for worker in workers:
            worker.result(30)
    kept = {prediction.id for prediction in Intake(serving.requests_path(shop.home)).predictions()}
    assert len(answered) >= 100 and set(answered) <= kept


def test_a_model_folder_is_served_as_it_is(shop: Shop, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(shop.folders[0], tmp_path / "mine"))
    source = serving.source_of(str(folder), shop.settings, shop.home)
    ref = source.current()
    assert (ref.name, ref.version, ref.digest) == ("mine", 0, digest_path(folder))
    assert source.load(ref).labels == ("neg", "pos")
    (folder / "config.json").write_text("{}")
    with pytest.raises(Tampered):
        source.load(ref)
    with pytest.raises(UsageError, match="neither"):
        serving.source_of(str(tmp_path / "absent"), shop.settings, shop.home)


def test_the_deployed_champion_stands_in_for_a_registry_that_is_away(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(settings: Settings, home: Path) -> None:
        raise TryAgain("MLflow does not answer")

    monkeypatch.setattr(releasing, "open_registry", away)
    source = serving.source_of("models:/autoglm@champion", shop.settings, tmp_path)
    with pytest.raises(TryAgain):
        source.current()
    deployed = ModelRef(name="autoglm", version=1, digest=digest_path(shop.folders[0]))
    releasing.announce(tmp_path, deployed)
    assert source.current() == deployed
    with pytest.raises(TryAgain):
        serving.source_of("models:/autoglm/1", shop.settings, tmp_path).current()


def test_names_of_no_model_are_told_so(shop: Shop) -> None:
    for name in ("models:/autoglm@nobody", "models:/autoglm/99", "models:/nobody@champion", "models:/../x"):
        with pytest.raises(UsageError):
            serving.source_of(name, shop.settings, shop.home).current()


def test_a_second_model_answers_its_share_of_the_users_and_the_two_are_compared(
    shop: Shop, autoglm: Callable[..., tuple[int, str, str]]
) -> None:
    shop.champion(1)
    with started(shop, "--challenger", "models:/autoglm/2", "--share", "0.5") as two:
        assert [model["version"] for model in two.http.get("/v1/models").json()["data"]] == [1, 2]
        for number in range(24):
            body = {"input": TEXTS[0], "user": f"user {number}", "ids": [f"arm-{number}"], "timestamp": "2025-12-24"}
            two.http.post("/v1/classify", json=body).raise_for_status()
        items = [{"id": f"arm-{number}", "label": "pos"} for number in range(24)]
        assert two.http.post("/v1/feedback", json={"items": items}).json()["accepted"] == 24
    span = ("--since", "2025-12-24", "--until", "2025-12-24")
    told = json.loads(autoglm("feedback", "arms", *span, "--json")[1])
    assert [arm["version"] for arm in told["arms"]] == [1, 2] and sum(arm["units"] for arm in told["arms"]) == 24
    assert told["reason"].startswith("too-few-users") and "too-few-users" in autoglm("feedback", "arms", *span)[1]
    assert autoglm("annotate", "--limit", "3")[0] == 0
