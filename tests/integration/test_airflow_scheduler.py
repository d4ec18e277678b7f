"""The same DAGs under Airflow's scheduler: `autoglm up`, a run by REST, a person's approval, `autoglm down`. Minutes, so: nightly."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from airflow_rest import Api, free_port, until
from playwright.sync_api import Page, sync_playwright

from autoglm_ops.cluster.process import marked
from autoglm_ops.cluster.services import Services

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "dags" / "fake" / "autoglm_ops"
CHROMIUM = shutil.which("chromium")
CLI = "import typer; from autoglm_ops.cli import airflow; app = typer.Typer(); airflow.add_to(app); app()"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Api, dict[str, str], list[str]]]:
    checkout, home = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("home")
    for name, target in {"dags": ROOT / "dags", "plugins": ROOT / "plugins", "autoglm_ops": FAKE}.items():
        (checkout / name).symlink_to(target)
    port, mlflow, serving = free_port(), free_port(), free_port()
    shutil.copy(ROOT / "params.yaml", checkout)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AUTOGLM"))} | {
        "AUTOGLM_HOME": str(home),
        "AUTOGLM_CHECKOUT": str(checkout),
        "AUTOGLM__SERVING__PORT": str(serving),
    }
    (home / "plan.json").write_text(json.dumps({"fired": False}))
    command = [sys.executable, "-c", CLI]
    ports = ["--airflow-port", str(port), "--mlflow-port", str(mlflow)]
    said = subprocess.run([*command, "up", *ports], env=environment, capture_output=True, text=True, check=False, timeout=400)
    assert said.returncode == 0, said.stderr
    assert "admin / " in said.stdout
    known = Services.read(home / "up.json").services
    yield home, Api(home, port), environment, ports
    subprocess.run([*command, "down"], env=environment, check=True, timeout=120)
    assert [service.name for service in known if marked(service.mark, service.pid)] == []
    assert not (home / "up.json").exists()


def test_a_second_up_says_so_and_nothing_listens_beyond_this_machine(up: Any):
    home, _, environment, ports = up
    again = subprocess.run(
        [sys.executable, "-c", CLI, "up", *ports], env=environment, capture_output=True, text=True, check=True
    )
    assert "already up" in again.stdout
    assert "admin / " not in again.stdout
    pids = {pid for service in Services.read(home / "up.json").services for pid in marked(service.mark, service.pid)}
    addresses = {address for pid in pids for address in listening(pid)}
    assert len(addresses) >= 2
    assert all(address.startswith("0100007F:") for address in addresses), addresses


def listening(pid: int) -> list[str]:
    """Addresses (hexadecimal, as the kernel writes them) that a process listens on; none when it has ended by now."""
    inodes, tables = set(), ""
    with suppress(OSError):
        tables = "".join(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                inodes.add(str(link.readlink()))
    rows = [line.split() for line in tables.splitlines() if ":" in line]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in inodes]


def test_a_run_by_rest_goes_through_and_its_report_needs_a_login(up: Any):
    home, api, _, _ = up
    code, answer = api.call("POST", "/api/v2/dags/train_on_demand/dagRuns", {"logical_date": None, "conf": {"epochs": -1}})
    assert code == 400
    assert "epochs" in str(answer)
    run = api.trigger("train_on_demand", {"epochs": 1, "learning_rate": 0.001})
    api.succeeds("train_on_demand", run)
    opened = [json.loads(line) for line in (home / "calls.jsonl").read_text().splitlines()]
    words = next(words for words in opened if f"--dag-run-id={run}" in words)
    assert {"--set=train.epochs=1", "--set=train.learning_rate=0.001", "--no-promote"} <= set(words)
    answer = api.call("GET", f"/api/v2/dags/train_on_demand/dagRuns/{run}/taskInstances/open_run/xcomEntries/return_value")[1]
    value = answer["value"]
    key = (json.loads(value) if isinstance(value, str) else value)["run"]
    page = home / "runs" / key / "out" / "report" / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<html>the report")
    assert api.call("GET", f"/autoglm/runs/{key}/report", signed=False)[0] == 401
    assert api.call("GET", f"/autoglm/runs/{key}/report") == (200, "<html>the report")
    assert api.call("GET", "/autoglm/runs/no-such-run/report")[0] == 404
    assert api.call("GET", "/autoglm/runs/..%2F..%2Fetc/report")[0] in (404, 422)
    log = api.call("GET", f"/api/v2/dags/train_on_demand/dagRuns/{run}/taskInstances/train/logs/1")[1]
    assert "train says hello" in json.dumps(log)


def test_many_who_write_at_once_are_all_answered(up: Any):
    """Four clients that triggered at once stood still until SQLite's patience (60 s) ended: see autoglm_airflow.turns."""
    _, api, _, _ = up

    def ask(number: int) -> int:
        epochs = -1 if number % 3 == 0 else 1
        return api.call("POST", "/api/v2/dags/train_on_demand/dagRuns", {"logical_date": None, "conf": {"epochs": epochs}})[0]

    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(ask, range(12))) == [400, 200, 200] * 4
    for run in api.call("GET", "/api/v2/dags/train_on_demand/dagRuns?state=queued&state=running")[1]["dag_runs"]:
        path = f"/api/v2/dags/train_on_demand/dagRuns/{run['dag_run_id']}"
        assert api.call("PATCH", path, {"state": "failed"})[0] == 200  # nobody waits for them


@pytest.fixture
def page(up: Any) -> Iterator[Page]:
    """The page of train_on_demand in Chromium, signed in, as a person has it."""
    home, api, _, _ = up
    with sync_playwright() as driver:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*quiet, "--disable-component-update"])
        shown = browser.new_page(viewport={"width": 1400, "height": 1100})
        shown.set_default_timeout(60_000)  # ms; two cores that also run Airflow and a browser
        shown.goto(f"{api.base}/dags/train_on_demand")
        shown.get_by_label("Username").fill("admin")
        shown.locator("input[type=password]").fill(json.loads((home / "airflow" / "passwords.json").read_text())["admin"])
        shown.get_by_role("button", name="Sign in").click()
        shown.wait_for_url(lambda url: "/login" not in url)  # a page asked for while signing in still leads away is aborted
        shown.goto(f"{api.base}/dags/train_on_demand")
        yield shown
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian's package chromium)")
def test_the_form_in_a_browser_refuses_a_bad_value_and_starts_a_run_with_a_good_one(up: Any, page: Page):
    home, api, _, _ = up

    def sets() -> list[str]:
        calls = home / "calls.jsonl"
        said = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
        return [word for words in said if words[:2] == ["runs", "open"] for word in words if word.startswith("--set=")]

    before = len(sets())
    page.get_by_role("button", name="Trigger").first.click()
    page.locator("input[name=element_epochs]").fill("-1")
    page.get_by_test_id("trigger-dag-submit").press("Enter")
    page.get_by_text("Failed to Trigger Dag").first.wait_for()
    assert len(sets()) == before  # refused before any work
    page.locator("input[name=element_epochs]").fill("2")
    page.locator("input[name=element_batch_size]").fill("64")
    page.get_by_test_id("trigger-dag-submit").press("Enter")
    page.wait_for_url("**/dags/train_on_demand/runs/**")
    run = urllib.parse.unquote(page.url.partition("/runs/")[2].partition("/")[0])
    api.succeeds("train_on_demand", run)
    assert sorted(sets()[before:]) == ["--set=train.batch_size=64", "--set=train.epochs=2"]


def test_promotion_by_hand_waits_for_a_person(up: Any):
    home, api, _, _ = up
    run = api.trigger("promote_model", {"action": "promote", "version": 3})
    path = f"/api/v2/dags/promote_model/dagRuns/{run}/taskInstances/approval"
    until(lambda: api.call("GET", path)[1].get("state") == "awaiting_input")
    assert "promote" not in [json.loads(line)[0] for line in (home / "calls.jsonl").read_text().splitlines()]

    def ended() -> bool:
        if api.call("GET", path)[1].get("state") == "awaiting_input":  # again, when the answer came too fast: see Approval
            time.sleep(3)  # a person reads first
            code, answer = api.call("PATCH", f"{path}/-1/hitlDetails", {"chosen_options": ["Approve"], "params_input": {}})
            assert code == 200, answer
        return api.state("promote_model", run) in ("success", "failed")

    until(ended)
    assert api.state("promote_model", run) == "success"
    assert ["promote", "--version=3", f"--reason=DAG run {run}", "--json"] in [
        json.loads(line) for line in (home / "calls.jsonl").read_text().splitlines()
    ]


def test_a_driven_run_is_handed_to_the_scheduler_that_is_alive(up: Any):
    from autoglm_ops.cli.airflow import airflow_environment

    home, api, environment, ports = up
    mine = environment | airflow_environment(home, Path(environment["AUTOGLM_CHECKOUT"]), int(ports[1]))
    command = [sys.executable, "-m", "autoglm_airflow.drive", "monitor_production", "--run-id", "manual__handed"]
    subprocess.run(command, env=mine, check=True, timeout=240, capture_output=True)
    answer = api.call("GET", "/api/v2/dags/monitor_production/dagRuns/manual__handed/taskInstances/monitor")[1]
    assert answer["state"] == "success"
    assert answer["executor_config"] is not None
    assert answer["queued_when"] is not None


def test_a_port_in_use_is_one_message_and_nothing_starts(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code = f"import sys; from autoglm_ops.cli.airflow import up; up(airflow_port={port})"
        environment = os.environ | {"AUTOGLM_HOME": str(tmp_path), "AUTOGLM_CHECKOUT": str(ROOT)}
        answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert f"port {port}, which Airflow needs, is in use" in answer.stderr
    assert not (tmp_path / "up.json").exists()
