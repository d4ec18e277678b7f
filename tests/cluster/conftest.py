"""What the tests of real clusters share. They take KUBECONFIG from the environment and say so when they skip.

Pods run the built trainer image when AUTOGLM_TEST_IMAGE names it. Without it they run this checkout and this interpreter, mounted
from the host, in an image that has nothing of its own; that needs a cluster whose one node is this machine.
"""

from __future__ import annotations

import fcntl
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_parts import IMAGE, ROOT, SECRETS, give_keys, make_namespace, reachable_s3

from autoglm_ops.cluster import indexed, kubernetes

sys.path[:0] = [str(ROOT / "tests" / name) for name in ("contracts", "integration", "cluster/mounting")]
import mounting  # noqa: E402
from opened_run import airflow, database, info, ready  # noqa: E402, F401


@pytest.fixture(scope="session")
def core() -> Any:
    """The API of a real cluster, or a skip that says what is missing."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set: no Kubernetes to test against")
    from kubernetes import client, config

    config.load_kube_config()
    return client.CoreV1Api()


@pytest.fixture(autouse=True)
def _pods_find_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    if not IMAGE:
        for module in (kubernetes, indexed):
            monkeypatch.setattr(module, "pods", mounting.pods)


@contextmanager
def _node(how: int, beside: pytest.TempPathFactory) -> Iterator[None]:
    with (beside.getbasetemp().parent / "node.lock").open("a") as lock:  # one for all workers of a test run
        fcntl.flock(lock, how)
        yield


@pytest.fixture
def untainted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody taints the one node meanwhile: a job that is told why it waits would be told of the taint."""
    with _node(fcntl.LOCK_SH, tmp_path_factory):
        yield


@pytest.fixture
def tainting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The node is this test's own, as far as `untainted` ones are concerned."""
    with _node(fcntl.LOCK_EX, tmp_path_factory):
        yield


@pytest.fixture(scope="session")
def namespaces(core: Any) -> Iterator[Callable[[], str]]:
    """Makes namespaces that are removed at the end."""
    made: list[str] = []

    def make() -> str:
        made.append(make_namespace(core))
        return made[-1]

    yield make
    for name in made:
        core.delete_namespace(name)


@pytest.fixture(scope="session")
def s3_server(
    core: Any, namespaces: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, str]]:
    with reachable_s3(core, namespaces(), tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture
def s3(s3_server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A store of this test's own, and the AWS clients of this process pointed at it."""
    from s3_server import BUCKET

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}-{uuid.uuid4().hex[:6]}"


@pytest.fixture
def namespace(core: Any, namespaces: Callable[[], str], s3_server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace with the team's Secret."""
    name = namespaces()
    monkeypatch.setenv("BENCH_SECRET", "correct-horse-battery")
    give_keys(core, name, {**s3_server, "BENCH_SECRET": "correct-horse-battery"})
    return name


@pytest.fixture(scope="session")
def plain(s3_server: Mapping[str, str]) -> dict[str, str]:
    """What a pod is told of the S3 server in the open."""
    return {name: value for name, value in s3_server.items() if name not in SECRETS}
