"""The Kubernetes launcher before an API server that misbehaves. tests/cluster has the real one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from fault_proxy import serving

from autoglm_ops.cluster import kubernetes
from autoglm_ops.cluster.kubernetes import KubernetesLauncher
from autoglm_ops.contracts.cluster import JobSpec
from autoglm_ops.contracts.placement import KubernetesPlace
from autoglm_ops.errors import Refused, TryAgain

JOB = JobSpec(name="train", command=("python",), image="t:1", key="ab" * 32, attempt=1, store="s3://b/p")
Answer = Callable[[str, str], tuple[int, dict[str, Any]]]
"""(method, path) -> status, body."""


@contextmanager
def api(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def _say(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            code, body = answer(self.command, self.path)
            text = json.dumps(body).encode()
            with suppress(ConnectionError):  # whoever asked has gone
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        do_GET = do_POST = do_DELETE = _say

    with serving(Handler) as address:
        yield address


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], KubernetesLauncher]:
    def at(address: str) -> KubernetesLauncher:
        names = {"cluster": "c", "user": "u"}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "x", "contexts": [{"name": "x", "context": names}],
            "clusters": [{"name": "c", "cluster": {"server": address}}], "users": [{"name": "u", "user": {}}],
        }  # fmt: skip
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
        return KubernetesLauncher(KubernetesPlace(images=("t:1",)))

    return at


def failure(code: int, reason: str, message: str = "") -> tuple[int, dict[str, Any]]:
    return code, {"kind": "Status", "reason": reason, "message": message, "code": code}


def test_a_server_that_says_nothing_is_away(
    launcher: Callable[[str], KubernetesLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the connection and is silent, as one behind a way that broke: without a limit that was waited for for ever."""
    monkeypatch.setattr(kubernetes, "BUDGET_SECONDS", 0.5)
    monkeypatch.setattr(kubernetes, "REQUEST_SECONDS", (0.5, 0.2))
    over = threading.Event()

    def silent(method: str, path: str) -> tuple[int, dict[str, Any]]:
        over.wait(5)
        return 200, {}

    with api(silent) as address:
        began = time.monotonic()
        with pytest.raises(TryAgain, match="does not answer"):
            launcher(address).look(JOB)
        over.set()
    assert time.monotonic() - began < 5


def test_a_token_that_ran_out_is_asked_with_again_and_is_no_refusal(
    launcher: Callable[[str], KubernetesLauncher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever followed a job had taken it for one that failed."""
    monkeypatch.setattr(kubernetes, "BUDGET_SECONDS", 0.5)
    says = [failure(401, "Unauthorized"), (200, {"metadata": {"name": "x"}, "status": {"phase": "Running"}})]
    with api(lambda method, path: says.pop(0) if len(says) > 1 else says[0]) as address:
        assert launcher(address).look(JOB) == "running"
    with (
        api(lambda method, path: failure(401, "Unauthorized")) as address,
        pytest.raises(TryAgain, match=r"knows us not: log in again \(401 Unauthorized\)"),
    ):
        launcher(address).look(JOB)


def test_a_conflict_over_a_quotas_count_is_asked_again(launcher: Callable[[str], KubernetesLauncher]) -> None:
    """Pods that are created at once write the same ResourceQuota, and all but one are answered 409 Conflict (kubernetes #67761)."""
    created = 0

    def answer(method: str, path: str) -> tuple[int, dict[str, Any]]:
        nonlocal created
        if method == "POST":
            created += 1
            text = (
                'Operation cannot be fulfilled on resourcequotas "q": the object has been modified; please apply your changes'
            )
            return failure(409, "Conflict", text) if created < 3 else (201, {"metadata": {"name": "x"}})
        return failure(404, "NotFound") if path.endswith("-1") else (200, {"items": []})

    with api(answer) as address:
        launcher(address).submit(JOB)
    assert created == 3


def test_a_pod_that_is_there_is_ours_and_a_no_is_no(launcher: Callable[[str], KubernetesLauncher]) -> None:
    asked: list[str] = []
    says = [failure(409, "AlreadyExists"), failure(422, "Invalid", "spec.x: wrong")]

    def answer(method: str, path: str) -> tuple[int, dict[str, Any]]:
        if method == "POST":
            asked.append(path)
            return says[len(asked) - 1]
        return failure(404, "NotFound") if path.endswith("-1") else (200, {"items": []})

    with api(answer) as address:
        launcher(address).submit(JOB)
        with pytest.raises(Refused, match=r"invalid: the cluster does not take the pod: spec\.x: wrong"):
            launcher(address).submit(JOB)
    assert len(asked) == 2


def test_a_pod_that_was_told_to_stop_is_not_followed_again(launcher: Callable[[str], KubernetesLauncher]) -> None:
    """On a lost node it is called Running for good, and every new attempt had taken it for one on its way."""
    pod = {"metadata": {"name": "x"}, "status": {"phase": "Running"}}
    with api(lambda method, path: (200, pod)) as address:
        assert launcher(address).look(JOB) == "running"
        pod["metadata"]["deletionTimestamp"] = "2026-01-14T05:00:00Z"
        assert launcher(address).look(JOB) == "ended"
