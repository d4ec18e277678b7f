"""What a pod costs over a process here, for the same stage of the default cycle: scheduling, the container's start, inputs and outputs
through S3. The image is there.

`tokenize` of the bundled dataset, three ways in turn: as a process here; here through the store (`cluster.rehearse`); in a pod. The store
is empty each time, so everything the stage reads goes up. Needs KUBECONFIG and what tests/cluster/conftest.py says of the node.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("contracts", "cluster", "cluster/mounting")]
REPEATS = int(os.environ.get("REPEATS", "7"))
BEFORE, STAGE = ("ingest", "validate", "prepare"), "tokenize"
HERE, STORE, POD = "a process here", "here, through the store", "in a pod"


def main() -> int:
    if not os.environ.get("KUBECONFIG"):
        print("KUBECONFIG is not set: the cost of a pod is not measured")
        return 0
    import mounting
    from cluster_parts import IMAGE, give_keys, make_namespace, reachable_s3
    from kubernetes import client, config

    from autoglm_ops.cluster import kubernetes

    config.load_kube_config()
    if not IMAGE:
        kubernetes.pods = mounting.pods
    core = client.CoreV1Api()
    namespace = make_namespace(core)
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            tempfile.TemporaryDirectory() as disk,
            reachable_s3(core, namespace, Path(disk)) as server,
        ):
            give_keys(core, namespace, {**server, "BENCH_SECRET": "-"})
            os.environ.update(server)
            root = prepared(Path(folder))
            print(
                f"{STAGE} of the bundled dataset is ready; {REPEATS} times each way, after one that is not counted", flush=True
            )
            report(measure(root, namespace, server))
    finally:
        core.delete_namespace(namespace)
    return 0


def prepared(folder: Path) -> Path:
    """A checkout whose next stage is the one that is measured."""
    from autoglm_ops.versioning import git

    root = folder / "w"
    git.clone(ROOT, root)
    os.environ.update(AUTOGLM_HOME=str(folder / "home"), AUTOGLM_CHECKOUT=str(root))
    for words in (["snapshot"], *(["stage", name] for name in BEFORE)):
        subprocess.run([sys.executable, "-m", "autoglm_ops", *words], cwd=root, check=True, stdout=subprocess.DEVNULL)
    return root


def measure(root: Path, namespace: str, server: Mapping[str, str]) -> dict[str, list[float]]:
    from cluster_parts import SECRETS, placement
    from s3_server import BUCKET

    from autoglm_ops.stages import runs

    plain = {name: value for name, value in server.items() if name not in SECRETS}
    found: dict[str, list[float]] = {HERE: [], STORE: [], POD: []}
    outputs: dict[str, str] = {}
    for repeat in range(REPEATS + 1):  # the first warms caches and is not counted
        for name, seconds in found.items():
            placed = placement(namespace, f"s3://{BUCKET}/{repeat}-{name.replace(' ', '-')}", plain)
            del placed["PYTHONPATH"]
            placed |= {"AUTOGLM__CLUSTER__STAGES": f"[{STAGE}]", "AUTOGLM__CLUSTER__REHEARSE": str(name == STORE)}
            os.environ.update(placed | ({} if name == POD else {"AUTOGLM__CLUSTER__BACKEND": "local"}))
            started = time.monotonic()
            done = runs.launch(root, STAGE)
            seconds += [time.monotonic() - started] if repeat else []
            outputs = outputs or done.outputs
            assert done.outputs == outputs, f"{name} left other bytes"
    return found


def report(measured: dict[str, list[float]]) -> None:
    print(f"\n{STAGE}, the same bytes each way (median, lowest to highest)")
    for name, seconds in measured.items():
        print(f"  {name:26} {statistics.median(seconds):6.2f} s   {min(seconds):.2f} to {max(seconds):.2f}")
    for other in (HERE, STORE):
        over = [one - two for one, two in zip(measured[POD], measured[other], strict=True)]
        ratios = [one / two for one, two in zip(measured[POD], measured[other], strict=True)]
        print(
            f"  a pod over {other}: {statistics.median(over):.2f} s ({min(over):.2f} to {max(over):.2f}), "
            f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    target = ROOT / ".autoglm" / "bench" / "cluster.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
