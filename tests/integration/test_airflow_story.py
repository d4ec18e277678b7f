"""The README's chapter with a scheduler, as one story: up, runs by REST, an answer, an alias moved in MLflow, a rollback, down.

Real stages under the real scheduler take minutes, so: nightly, and CI after the suite.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import boto3
import httpx
import pytest
from airflow_rest import Api, free_port, until
from newcomer import DAYS, ROOT, Checkout, make_checkout
from s3_server import BUCKET, KEYS, serve_s3

from autoglm_ops.cluster.process import marked
from autoglm_ops.cluster.services import Services
from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.record import Completion
from autoglm_ops.settings import load
from autoglm_ops.stages import replay
from autoglm_ops.stages.faults import reported
from autoglm_ops.stages.replay import Client, Traffic

pytestmark = pytest.mark.slow


class Platform:
    """A newcomer's checkout with everything up, and its raw text in a bucket of a real S3 server."""

    def __init__(self, folder: Path, bucket: dict[str, str]) -> None:
        self.airflow, self.mlflow, serving = free_port(), free_port(), free_port()
        made = make_checkout(folder)
        self.checkout = Checkout(
            made.root,
            made.home,
            {"AUTOGLM__SERVING__PORT": str(serving), "AUTOGLM__FLOW__LOCATION": f"s3://{BUCKET}/raw", **bucket},
        )
        self.bucket = bucket
        self.said = self.checkout.call("up", "--airflow-port", str(self.airflow), "--mlflow-port", str(self.mlflow))
        self.api = Api(made.home, self.airflow)
        self.server = f"http://127.0.0.1:{serving}"

    def run(self, conf: dict[str, object]) -> None:
        """A run of daily_retrain by REST, to its end."""
        self.api.succeeds("daily_retrain", self.api.trigger("daily_retrain", conf))

    def registry(self, method: str, path: str, **body: str) -> dict[str, object]:
        """MLflow's own REST API: what its UI calls."""
        where = f"http://127.0.0.1:{self.mlflow}/api/2.0/mlflow/{path}"
        answer = httpx.request(method, where, **({"params": body} if method == "GET" else {"json": body}))  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        found: dict[str, object] = answer.json()
        return found

    def champion(self) -> str:
        found = self.registry("GET", "registered-models/alias", name="autoglm", alias="champion")
        return str(found["model_version"]["version"])  # type: ignore[index]

    def ledger(self) -> list[tuple[str, int]]:
        [said] = [line for line in self.checkout.call("ledger", "--json").splitlines() if line.startswith('{"lines"')]
        return [(line["action"], line["model"]["version"]) for line in json.loads(said)["lines"]]

    def upload(self, name: str, text: str) -> None:
        """What another team does: an object more in the bucket."""
        keys = {"aws_access_key_id": KEYS["accessKey"], "aws_secret_access_key": KEYS["secretKey"], "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=self.bucket["AWS_ENDPOINT_URL"], **keys)
        client.put_object(Bucket=BUCKET, Key=name, Body=text.encode())

    def client(self) -> Client:
        key = self.checkout.home / "serving" / "api-key"
        until(key.exists)
        return Client(self.server, key.read_text().split()[0])


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with serve_s3(tmp_path_factory.mktemp("s3")) as bucket:
        made = Platform(tmp_path_factory.mktemp("story") / "checkout", bucket)
        known = Services.read(made.checkout.home / "up.json").services
        yield made
        assert "stopped" in made.checkout.call("down")
        assert [service.name for service in known if marked(service.mark, service.pid)] == []


def test_runs_by_rest_an_alias_moved_in_mlflow_and_a_rollback(platform: Platform) -> None:
    assert platform.said.count("http://127.0.0.1:") == 3 and "admin / " in platform.said
    platform.run({"as_of": "2026-03-04"})
    assert platform.champion() == "1"
    summary = json.loads((platform.checkout.home / "latest" / "summary.json").read_text())
    assert summary["gate"]["verdict"] == "promote" and summary["release"]["version"] == 1
    client = platform.client()
    until(lambda: _serves(client, 1))

    platform.run({"as_of": "2026-03-04", "set": {"train.epochs": 2}, "promote": False})
    assert platform.champion() == "1"  # it was registered, and may not move the alias
    platform.registry("POST", "registered-models/alias", name="autoglm", alias="champion", version="2")
    until(lambda: _serves(client, 2))
    assert platform.ledger()[-1] == ("observed", 2)  # noticed, and honoured

    assert "v1 is champion again" in platform.checkout.call("rollback")
    assert platform.champion() == "1" and platform.ledger()[-1] == ("rollback", 1)
    until(lambda: _serves(client, 1))
    client.close()


def test_the_form_by_rest_makes_a_clusters_journey_and_gpus_that_are_not_here_are_refused_at_once(platform: Platform) -> None:
    """`cluster.rehearse` is a cluster backend on one machine: fresh folders, through the store."""
    place = "/api/v2/dags/train_on_demand/dagRuns"
    for bad in ({"precision": "int8"}, {"quantization": "int4"}, {"gpus": -1}, {"gpu_kind": "gtx-1080"}):
        assert platform.api.call("POST", place, {"logical_date": None, "conf": bad})[0] == 400, bad
    refused = platform.api.trigger("train_on_demand", {"gpus": 1, "set": {"cluster.rehearse": True}})
    asked = {
        "precision": "bf16",
        "quantization": "int8",
        "gpus": 0,
        "tune": False,
        "as_of": "2026-03-03",
        "set": {"cluster.rehearse": True},
    }
    platform.api.succeeds("train_on_demand", platform.api.trigger("train_on_demand", asked))
    assert platform.api.state("train_on_demand", refused) == "failed"
    code, log = platform.api.call("GET", f"{place}/{refused}/taskInstances/open_run/logs/1")
    assert code == 200 and "cluster.backend is local and this machine has no GPUs" in json.dumps(log)
    [run] = [
        root for root in _workspaces(platform.checkout.home) if "train_on_demand" in (root / "inputs" / "run.json").read_text()
    ]
    assert json.loads((run / "out" / "plan" / "plan.json").read_text())["precision"] == "bf16"
    assert json.loads((run / "out" / "train" / "training.json").read_text())["quantised"]["scheme"] == "autoglm-int8 1"
    assert "job_seconds" in Completion.read(run / "completed" / "train.json").measured, "through the store"


def test_labels_that_come_back_to_the_live_server_start_a_study_and_a_retraining(platform: Platform) -> None:
    """The loop under the scheduler. The labels say the opposite of the truth, so what the champion promised is clearly missed."""
    batch = list(replay.traffic(load(ROOT / "params.yaml", environ={})))[DAYS]
    places = [*range(150), *range(len(batch.texts) // 2, len(batch.texts) // 2 + 150)]
    asked = Traffic(
        date(2026, 3, DAYS + 1), *(tuple(column[place] for place in places) for column in (batch.texts, batch.labels))
    )
    client = platform.client()
    until(lambda: _serves(client, int(platform.champion())))
    _, ids, _ = client.classify(asked)
    other = dict(zip(sorted(set(asked.labels)), sorted(set(asked.labels), reverse=True), strict=True))
    assert client.feedback(ids, reported([other[label] for label in asked.labels], DAYS + 1, None, seed=7)) == len(ids)
    client.close()

    name = platform.api.trigger("feedback_retune", {"as_of": asked.day.isoformat()})
    platform.api.succeeds("feedback_retune", name)
    tasks = platform.api.tasks("feedback_retune", name)
    assert {state.partition(",")[0] for state in tasks.values()} == {"success"}, tasks
    said = SignalsOfDay.read(platform.checkout.home / "feedback" / "signals" / f"{asked.day}.json")
    assert "quality" in {signal.name for signal in said.signals if signal.fired}
    platform.api.succeeds("daily_retrain", f"feedback_retune__{name}")


def test_a_new_object_in_the_bucket_starts_a_build_of_the_dataset_within_a_minute(platform: Platform) -> None:
    def runs() -> list[dict[str, str]]:
        code, answer = platform.api.call("GET", "/api/v2/dags/dataset_build/dagRuns")
        assert code == 200, answer
        found: list[dict[str, str]] = answer["dag_runs"]
        return found

    assert runs() == []  # the bucket was empty
    lines = [json.dumps({"body": f"text {number} of ship {number * 7} in harbour {number * 13}"}) for number in range(50)]
    platform.upload("raw/new.jsonl", "\n".join(lines) + "\n")
    until(runs, seconds=60)
    platform.api.succeeds("dataset_build", runs()[0]["dag_run_id"])
    assert runs()[0]["run_type"] == "asset_triggered"
    [dataset] = json.loads(platform.checkout.call("data", "list", "--json").splitlines()[-1])
    assert dataset["kept"] == 50


def _workspaces(home: Path) -> list[Path]:
    return [path.parents[1] for path in (home / "runs").glob("[!.]*/inputs/run.json")]


def _serves(client: Client, version: int) -> bool:
    try:
        return client.version() == version
    except (httpx.TransportError, KeyError, IndexError):
        return False
