"""What a pod costs over a process here, for the same work: scheduling, the container's start, inputs and outputs through S3. The image is there.

Three ways, in turn, a new key each time: the command alone; the command through the store in a fresh folder (`cluster.rehearse`); the
command in a pod. Needs KUBECONFIG and a node that is this machine (see tests/cluster/conftest.py).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("contracts", "cluster/mounting")]
HOST = os.environ.get("AUTOGLM_POD_HOST", "10.244.0.1")
BARE = os.environ.get("AUTOGLM_BARE_IMAGE", "localhost/pause:1")
REPEATS = int(os.environ.get("REPEATS", "5"))
CODE = "import pathlib; p = pathlib.Path('out/made'); p.mkdir(parents=True); p.joinpath('x').write_bytes(pathlib.Path('in/x').read_bytes())"
MB = 16


def main() -> int:
    if not os.environ.get("KUBECONFIG"):
        print("KUBECONFIG is not set: the cost of a pod is not measured")
        return 0
    from s3_server import BUCKET, KEYS, serve_s3

    namespace = f"autoglm-bench-{uuid.uuid4().hex[:6]}"
    kubectl("create", "namespace", namespace)
    try:
        kubectl("-n", namespace, "create", "secret", "generic", "keys", f"--from-literal=AWS_ACCESS_KEY_ID={KEYS['accessKey']}",
                f"--from-literal=AWS_SECRET_ACCESS_KEY={KEYS['secretKey']}")  # fmt: skip
        kubectl("-n", namespace, "run", "first", f"--image={BARE}", "--restart=Never")
        kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/first", "--timeout=60s")
        with tempfile.TemporaryDirectory() as folder, serve_s3(Path(folder), HOST) as environment:
            os.environ.update(environment)
            measured = measure(f"s3://{BUCKET}/bench", namespace, Path(folder), environment)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
    report(measured)
    return 0


def measure(uri: str, namespace: str, folder: Path, environment: dict[str, str]) -> dict[str, list[float]]:
    import mounting

    from autoglm_ops.cluster import kubernetes
    from autoglm_ops.cluster.dispatch import run_work
    from autoglm_ops.cluster.local import LocalLauncher
    from autoglm_ops.contracts.cluster import JobSpec, Work
    from autoglm_ops.contracts.placement import KubernetesPlace
    from autoglm_ops.store import open_store

    kubernetes.pods = mounting.pods
    store = open_store(uri, folder)
    given = folder / "given"
    given.mkdir()
    (given / "x").write_bytes(os.urandom(MB << 20))
    digest = store.put(given)
    secrets = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    plain = {name: value for name, value in environment.items() if name not in secrets}
    pods = kubernetes.KubernetesLauncher(KubernetesPlace(namespace=namespace, images=(BARE,), secret="keys"))
    job = JobSpec(name="bench", command=(), image=BARE, environment=plain, secrets=secrets, store=uri)

    def through(launcher: LocalLauncher | kubernetes.KubernetesLauncher, python: str) -> None:
        work = Work(
            name="bench", command=("python", "-c", f"{CODE}  # {uuid.uuid4()}"), inputs={"in": digest}, outputs=("out/made",)
        )
        status = run_work(work, job, launcher, store, python)
        assert status.state == "succeeded", status

    def alone() -> None:
        place = folder / uuid.uuid4().hex
        (place / "in").mkdir(parents=True)
        (place / "in" / "x").write_bytes((given / "x").read_bytes())
        assert LocalLauncher().run(JobSpec(name="bench", command=(sys.executable, "-c", CODE), workdir=str(place))).exit == 0

    ways: dict[str, Callable[[], None]] = {
        "the command here": alone,
        "here, through the store": lambda: through(LocalLauncher(), sys.executable),
        "in a pod": lambda: through(pods, "python"),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):  # the first warms caches and is not counted
        for name, way in ways.items():
            started = time.monotonic()
            way()
            if repeat:
                found[name].append(time.monotonic() - started)
    return found


def kubectl(*words: str) -> None:
    subprocess.run(["kubectl", *words], check=True, stdout=subprocess.DEVNULL)


def report(measured: dict[str, list[float]]) -> None:
    print(f"\nthe same work, {MB} MiB in and out of S3, {REPEATS} times in turn (median, lowest–highest)")
    for name, seconds in measured.items():
        print(f"  {name:26} {statistics.median(seconds):6.2f} s   {min(seconds):.2f}–{max(seconds):.2f}")
    pod, here = measured["in a pod"], measured["here, through the store"]
    over = [one - other for one, other in zip(pod, here, strict=True)]
    print(
        f"  a pod costs {statistics.median(over):.2f} s ({min(over):.2f}–{max(over):.2f}) over the same journey through the store on this machine"
    )
    target = ROOT / ".autoglm" / "bench" / "cluster.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
