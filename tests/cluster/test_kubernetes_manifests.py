"""What `autoglm cluster manifests` renders, on a real API server: every manifest is taken, a job runs under it, and no more is allowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_parts import BARE, IMAGE, ROOT, SECRETS, wait_for
from launcher_contract import JOB, Bench, work

from autoglm_ops.cluster.indexed import manifests
from autoglm_ops.cluster.kubernetes import KubernetesLauncher
from autoglm_ops.contracts.cluster import Resources
from autoglm_ops.contracts.placement import KubernetesPlace
from autoglm_ops.store import open_store

PRIORITIES = str(ROOT / "docker" / "k8s" / "priorities.yaml")


def kubectl(*words: str, check: bool = True, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["kubectl", *words], capture_output=True, text=True, check=check, input=given)


@pytest.fixture(scope="module")
def team(core: Any, plain: dict[str, str]) -> Iterator[str]:
    """The README's way: the manifests of the checkout's params.yaml, given to kubectl."""
    command = [sys.executable, "-m", "autoglm_ops", "cluster", "manifests"]
    environment = {**os.environ, "AUTOGLM_CHECKOUT": str(ROOT), "AUTOGLM__CLUSTER__ENVIRONMENT": json.dumps(plain)}
    rendered = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    kubectl("apply", "--validate=true", "-f", PRIORITIES)
    kubectl("apply", "--validate=true", "-f", "-", given=rendered)
    again = kubectl("apply", "-f", "-", given=rendered).stdout.splitlines()
    assert len(again) == 9 and all(line.endswith(" unchanged") for line in again), again
    wait_for(lambda: (core.read_namespaced_resource_quota("team-quota", "autoglm").status.hard or {}).get("pods"))
    yield "autoglm"
    kubectl("delete", "--wait=false", "-f", "-", check=False, given=rendered)
    kubectl("delete", "--wait=false", "-f", PRIORITIES, check=False)


def test_a_job_runs_under_the_teams_rules(
    team: str, core: Any, s3: str, plain: dict[str, str], s3_server: Any, tmp_path: Path
) -> None:
    secret = {"metadata": {"name": "team-keys"}, "stringData": {key: s3_server[key] for key in SECRETS if key in s3_server}}
    core.create_namespaced_secret(team, secret)
    classes = {"low": "autoglm-low", "normal": "autoglm-normal", "high": "autoglm-high"}
    where = KubernetesPlace(namespace=team, images=(IMAGE or BARE,), secret="team-keys", priority_classes=classes)
    job = JOB.model_copy(
        update={
            "image": IMAGE or BARE,
            "environment": plain,
            "secrets": SECRETS[:2],
            "resources": Resources(cpu=0.2, memory_gib=0.5),
        }
    )
    bench = Bench(KubernetesLauncher(where, 60.0), open_store(s3, tmp_path), s3, "python", tmp_path, job)
    assert bench.run(work("")).exit == 0
    greedy = Bench(
        bench.launcher, bench.store, s3, "python", tmp_path, job.model_copy(update={"resources": Resources(memory_gib=65)})
    )
    assert "team-quota: limits.memory: asks 65Gi" in greedy.run(work("1")).reason
    large = Bench(
        bench.launcher, bench.store, s3, "python", tmp_path, job.model_copy(update={"resources": Resources(memory_gib=33)})
    )
    assert "maximum memory usage per Container is 32Gi" in large.run(work("2")).reason


@pytest.mark.parametrize(
    ("verb", "what", "may"),
    [("create", "pods", "yes"), ("delete", "pods", "yes"), ("get", "pods/log", "yes"), ("list", "resourcequotas", "yes"),
     ("get", "secrets", "no"), ("create", "pods/exec", "no"), ("list", "nodes", "no"), ("delete", "resourcequotas", "no")],
)  # fmt: skip
def test_the_launcher_may_do_its_work_and_no_more(team: str, verb: str, what: str, may: str) -> None:
    resource, _, sub = what.partition("/")
    asked = kubectl(
        "auth",
        "can-i",
        verb,
        resource,
        *([f"--subresource={sub}"] if sub else []),
        "-n",
        team,
        f"--as=system:serviceaccount:{team}:launcher",
        check=False,
    )
    assert asked.stdout.strip().splitlines()[-1] == may


def test_an_indexed_job_and_its_service_are_taken(core: Any, namespace: str) -> None:
    """By the API server's rules for the pods, the Service and the Job; one too old for indices reads over those."""
    from kubernetes import client

    resources = Resources(nodes=2, cpu=1, memory_gib=1)
    where = KubernetesPlace(namespace=namespace, images=(BARE,), secret="team-keys")
    given = {
        "image": BARE,
        "store": "s3://models/x",
        "key": "ab" * 32,
        "attempt": 1,
        "resources": resources,
        "secrets": SECRETS,
    }
    service, whole = manifests("job", JOB.model_copy(update={**given, "command": ("python", "-m", "x")}), where)
    assert core.create_namespaced_service(namespace, service, dry_run="All").spec.cluster_ip == "None"
    taken = client.BatchV1Api().create_namespaced_job(namespace, whole, dry_run="All")
    assert (taken.spec.completions, taken.spec.backoff_limit) == (2, 0)
    assert taken.spec.template.spec.containers[0].security_context.read_only_root_filesystem
