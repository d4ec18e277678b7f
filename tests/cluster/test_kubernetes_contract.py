"""The contract of every launcher, kept by pods of a real cluster; and what only a cluster can refuse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_parts import BARE, IMAGE, SECRETS, wait_for
from launcher_contract import JOB, Bench, LauncherContract, work

from autoglm_ops.cli import runs as runs_cli
from autoglm_ops.cluster import exchange
from autoglm_ops.cluster.dispatch import place
from autoglm_ops.cluster.kubernetes import KubernetesLauncher
from autoglm_ops.contracts.cluster import JobSpec, Resources, WorkResult
from autoglm_ops.contracts.placement import KubernetesPlace
from autoglm_ops.settings import load
from autoglm_ops.stages import away
from autoglm_ops.store import open_store


@pytest.fixture
def bench(namespace: str, s3: str, plain: dict[str, str], tmp_path: Path) -> Bench:
    where = KubernetesPlace(namespace=namespace, images=(IMAGE or BARE,), secret="team-keys")
    job = JOB.model_copy(update={"image": IMAGE or BARE, "environment": plain, "secrets": SECRETS})
    return Bench(KubernetesLauncher(where, 20.0), open_store(s3, tmp_path), s3, "python", tmp_path, job)


class TestKubernetesLauncher(LauncherContract):
    @pytest.fixture
    def bench(self, bench: Bench) -> Bench:
        return bench


def asking(bench: Bench, **more: Any) -> Bench:
    return Bench(bench.launcher, bench.store, bench.uri, bench.python, bench.folder, bench.job.model_copy(update=more))


def pods_of(core: Any, namespace: str) -> list[Any]:
    return list(core.list_namespaced_pod(namespace).items)


def test_no_such_gpu_is_said_by_the_scheduler(bench: Bench, core: Any, namespace: str) -> None:
    status = asking(bench, resources=Resources(gpus=3)).run(work(""))
    assert (status.state, status.exit) == ("refused", 75)
    assert status.reason.startswith("unschedulable:") and "nvidia.com/gpu" in status.reason
    assert pods_of(core, namespace) == [] or all(pod.metadata.deletion_timestamp for pod in pods_of(core, namespace))


@pytest.mark.usefixtures("tainting")
def test_a_taint_keeps_an_untolerated_job_away_and_lets_a_tolerated_one_in(bench: Bench, core: Any, namespace: str) -> None:
    [node] = core.list_node().items
    taint = {"key": "autoglm-test", "value": "vision", "effect": "NoSchedule"}
    core.patch_node(node.metadata.name, {"spec": {"taints": [taint]}})
    try:
        status = bench.run(work(""))
        assert (status.state, status.exit) == ("refused", 75) and "taint {autoglm-test: vision}" in status.reason
        toleration = {"key": "autoglm-test", "operator": "Equal", "value": "vision", "effect": "NoSchedule"}
        where = KubernetesPlace(namespace=namespace, images=(IMAGE or BARE,), secret="team-keys", tolerations=(toleration,))
        tolerated = Bench(KubernetesLauncher(where, 60.0), bench.store, bench.uri, "python", bench.folder, bench.job)
        assert tolerated.run(work("")).exit == 0
    finally:
        core.patch_node(node.metadata.name, {"spec": {"taints": None}})


def test_a_quota_refuses_by_its_name_before_and_after_sending(bench: Bench, core: Any, namespace: str) -> None:
    hard = {"requests.memory": "1Gi", "limits.memory": "1Gi", "requests.cpu": "1", "limits.cpu": "1"}
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "vision-quota"}, "spec": {"hard": hard}})
    wait_for(lambda: (core.read_namespaced_resource_quota("vision-quota", namespace).status.hard or {}).get("requests.memory"))
    big = asking(bench, resources=Resources(cpu=0.1, memory_gib=2))
    status = big.run(work(""))
    assert (status.state, status.exit) == ("refused", 3) and "vision-quota: limits.memory: asks 2Gi" in status.reason
    launcher = bench.launcher
    assert isinstance(launcher, KubernetesLauncher)
    launcher._quotas = list  # type: ignore[method-assign]  # one who may not read quotas: the API server says the same
    status = big.run(work(""))
    assert (status.state, status.exit) == ("refused", 3) and status.reason.startswith("quota: vision-quota refuses the pod")
    del launcher._quotas
    assert asking(bench, resources=Resources(cpu=0.5, memory_gib=0.5)).run(work("")).exit == 0


def test_a_limit_range_refuses_by_its_rule(bench: Bench, core: Any, namespace: str) -> None:
    core.create_namespaced_limit_range(
        namespace, {"metadata": {"name": "most"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}}
    )
    status = asking(bench, resources=Resources(memory_gib=2)).run(work(""))
    assert (status.state, status.exit) == ("refused", 3) and "maximum memory usage per Container is 1Gi" in status.reason


def test_an_unknown_image_is_named(bench: Bench, namespace: str) -> None:
    where = KubernetesPlace(namespace=namespace, images=("127.0.0.1:1/nobody/nothing:1",), secret="team-keys")
    other = Bench(KubernetesLauncher(where, 8.0), bench.store, bench.uri, "python", bench.folder, bench.job)
    status = asking(other, image="127.0.0.1:1/nobody/nothing:1").run(work(""))
    assert (status.state, status.exit) == ("refused", 2) and status.reason.startswith(
        "image: 127.0.0.1:1/nobody/nothing:1 cannot be had"
    )


def test_an_image_without_the_package_fails_and_says_so(bench: Bench, namespace: str) -> None:
    where = KubernetesPlace(namespace=namespace, images=(BARE,), secret="team-keys")
    other = Bench(KubernetesLauncher(where, 15.0), bench.store, bench.uri, "no-such-python", bench.folder, bench.job)
    status = asking(other, image=BARE).run(work(""))
    assert status.exit not in (0, 75) and "no-such-python" in status.reason


def test_a_missing_secret_is_named(bench: Bench, namespace: str) -> None:
    where = KubernetesPlace(namespace=namespace, images=(IMAGE or BARE,), secret="nobodys-keys")
    other = Bench(KubernetesLauncher(where, 6.0), bench.store, bench.uri, "python", bench.folder, bench.job)
    status = other.run(work(""))
    assert (status.state, status.exit) == ("refused", 2) and 'secret "nobodys-keys" not found' in status.reason


def test_too_much_memory_is_called_that(bench: Bench) -> None:
    status = asking(bench, resources=Resources(memory_gib=0.25)).run(work("x = bytearray(2 << 30)"))
    assert status.exit in (3, 137) and status.state in ("lost", "failed") and "memory" in status.reason


def test_a_launcher_that_died_finds_its_pod_again(
    bench: Bench, core: Any, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL to the process that launched; a second launcher follows the same pod within 30 s and gets its one result."""
    slow = work(
        "import time, pathlib; time.sleep(12); p = pathlib.Path('out/made'); p.mkdir(parents=True); p.joinpath('x').touch(); p.joinpath('y').write_text('1')"
    )
    script = bench.folder / "launch.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys; sys.path[:0] = {sys.path!r}
        import conftest, mounting
        from autoglm_ops.cluster import kubernetes
        kubernetes.pods = kubernetes.pods if conftest.IMAGE else mounting.pods
        from launcher_contract import Bench, JobSpec, Work
        from autoglm_ops.cluster.kubernetes import KubernetesLauncher
        from autoglm_ops.contracts.placement import KubernetesPlace
        from autoglm_ops.store import open_store
        from pathlib import Path
        where = KubernetesPlace(namespace={namespace!r}, images=({IMAGE or BARE!r},), secret="team-keys")
        job = JobSpec.model_validate_json({bench.job.model_dump_json()!r})
        Bench(KubernetesLauncher(where, 60.0), open_store({bench.uri!r}, Path(".")), {bench.uri!r}, "python", Path("."), job).run(
            Work.model_validate_json({slow.model_dump_json()!r}))
        """)
    )
    first = subprocess.Popen([sys.executable, str(script)], env=os.environ)
    wait_for(lambda: [pod for pod in pods_of(core, namespace) if pod.status.phase == "Running"])
    [pod] = pods_of(core, namespace)
    first.kill()
    first.wait()
    killed = time.time()
    with caplog.at_level("INFO", "autoglm_ops.cluster.dispatch"):
        status = bench.run(slow)
    [found] = [line for line in caplog.records if "following it" in line.getMessage()]
    print(f"found again {found.created - killed:.2f} s after the kill")
    assert found.created - killed < 30
    assert status.state == "succeeded" and list(status.outputs) == ["out/made"]
    assert exchange.newest(bench.store, exchange.describe(bench.store, slow)) == 1, "it was one attempt"
    assert pod.metadata.name.endswith("-1")


def test_a_cancelled_launcher_leaves_no_pod(bench: Bench, core: Any, namespace: str) -> None:
    threading.Timer(4.0, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
    status = bench.run(work("import time; time.sleep(300)"))
    assert (status.state, status.exit) == ("cancelled", 143)
    wait_for(lambda: not pods_of(core, namespace))


@pytest.mark.parametrize("how", ["deleted", "drained"])
def test_a_pod_that_is_taken_away_is_called_that_and_its_successor_goes_on(
    bench: Bench, core: Any, namespace: str, how: str
) -> None:
    code = (
        "import os, pathlib, time; c = pathlib.Path('scratch'); c.mkdir(exist_ok=True)\n"
        "if not (c / 'step-1').exists():\n"
        "    (c / '.t').mkdir(); (c / '.t' / 'w').write_text('7'); os.replace(c / '.t', c / 'step-1'); time.sleep(300)\n"
        "p = pathlib.Path('out/made'); p.mkdir(parents=True); p.joinpath('w').write_text((c / 'step-1' / 'w').read_text())"
    )
    resumed = work(code, keeps=("scratch/step-*",))
    key = exchange.describe(bench.store, resumed)
    removed = threading.Thread(target=_take_away_when_kept, args=(bench, core, namespace, key, how))
    removed.start()
    status = bench.run(resumed)
    removed.join()
    assert (status.state, status.exit) == ("lost", 75) and status.reason.startswith("deleted:")
    assert bench.run(resumed).state == "succeeded"


def _take_away_when_kept(bench: Bench, core: Any, namespace: str, key: str, how: str) -> None:
    wait_for(lambda: exchange.last_kept(bench.store, key))
    [pod] = pods_of(core, namespace)
    name, node = pod.metadata.name, pod.spec.node_name
    if how == "deleted":
        core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
        return
    core.patch_node(
        node, {"spec": {"unschedulable": True}}
    )  # as `kubectl drain` does: no new pods, and those there are asked to leave
    try:
        core.create_namespaced_pod_eviction(name, namespace, _eviction(core, name, namespace))
        wait_for(lambda: not pods_of(core, namespace))
    finally:
        core.patch_node(node, {"spec": {"unschedulable": None}})


def _eviction(core: Any, name: str, namespace: str) -> dict[str, Any]:
    from kubernetes.client import VersionApi

    old = int("".join(filter(str.isdigit, VersionApi(core.api_client).get_code().minor))) < 22
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "policy/v1beta1" if old else "policy/v1", "kind": "Eviction", "metadata": meta}


@contextmanager
def furnished(core: Any) -> Iterator[None]:
    """The node with two GPUs (in name), a label, and a PriorityClass of 1,000 on the cluster."""
    from kubernetes.client import SchedulingV1Api

    [node] = core.list_node().items
    gpus = {"status": {part: {"nvidia.com/gpu": "2"} for part in ("capacity", "allocatable")}}
    classes = SchedulingV1Api(core.api_client)
    classes.create_priority_class({"metadata": {"name": "autoglm-test"}, "value": 1000})
    core.patch_node(node.metadata.name, {"metadata": {"labels": {"autoglm-test": "vision"}}})
    core.patch_node_status(node.metadata.name, gpus)
    try:
        wait_for(lambda: core.read_node(node.metadata.name).status.allocatable.get("nvidia.com/gpu") == "2")
        yield
    finally:
        gone = {"status": {part: {"nvidia.com/gpu": None} for part in ("capacity", "allocatable")}}
        core.patch_node_status(node.metadata.name, gone)
        core.patch_node(node.metadata.name, {"metadata": {"labels": {"autoglm-test": None}}})
        classes.delete_priority_class("autoglm-test")


def near(value: str) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": "autoglm-test", "operator": "In", "values": [value]}]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def test_gpus_selector_affinity_and_priority_place_a_job(bench: Bench, core: Any, namespace: str) -> None:
    fitting = {
        "node_selector": {"autoglm-test": "vision"},
        "affinity": near("vision"),
        "priority_classes": {"normal": "autoglm-test"},
    }

    def placed(start: float, **more: Any) -> Bench:
        where = KubernetesPlace(namespace=namespace, images=(IMAGE or BARE,), secret="team-keys", **{**fitting, **more})
        job = bench.job.model_copy(update={"resources": Resources(gpus=2)})
        return Bench(KubernetesLauncher(where, start), bench.store, bench.uri, "python", bench.folder, job)

    with furnished(core):
        for more in ({"node_selector": {"autoglm-test": "text"}}, {"affinity": near("text")}):
            status = placed(4, **more).run(work("pass"))
            assert (status.state, status.exit) == ("refused", 75) and status.reason.startswith("unschedulable:")
        status = placed(4, priority_classes={"normal": "nobodys"}).run(work("pass"))
        assert (status.state, status.exit) == ("refused", 3) and "nobodys" in status.reason
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(placed(60).run, work("print(7)"))
            [pod] = wait_for(lambda: pods_of(core, namespace) or running.done())
            assert pod.spec.priority == 1000 and pod.spec.containers[0].resources.limits["nvidia.com/gpu"] == "2"
            assert running.result().exit == 0


def test_two_launchers_at_once_make_one_result(bench: Bench) -> None:
    once = work(
        "import pathlib, os; p = pathlib.Path('out/made'); p.mkdir(parents=True); p.joinpath('x').write_text(os.urandom(8).hex())"
    )
    found: list[Any] = []
    both = [threading.Thread(target=lambda: found.append(bench.run(once))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    last = bench.run(once)
    assert last.state == "succeeded"
    assert all(status.outputs == last.outputs for status in found if status.state == "succeeded")


def test_pods_that_nobody_waits_for_are_swept(
    bench: Bench, core: Any, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`autoglm runs prune`, by a pod whose key has another result by now."""
    launcher = bench.launcher
    assert isinstance(launcher, KubernetesLauncher)
    job: JobSpec = place(
        work("import time; time.sleep(300)"), bench.job.model_copy(update={"store": bench.uri}), launcher, bench.store, "python"
    )
    launcher.submit(job)
    assert job.key is not None
    tree = {"store": {"uri": bench.uri}, "cluster": {"backend": "kubernetes", "kubernetes": {"namespace": namespace}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.setenv("AUTOGLM_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    settings = load(tmp_path / "params.yaml", environ={})
    assert away.sweep(tmp_path, settings) == [], "it is the newest attempt, and not done"
    exchange.publish(bench.store, WorkResult(key=job.key, attempt=1, state="succeeded", exit=0, seconds=1))
    monkeypatch.chdir(tmp_path)
    runs_cli.prune(keep=10, dry_run=False)
    assert f"removed job {job.handle}" in capsys.readouterr().out
    wait_for(lambda: not pods_of(core, namespace))
