"""Where the tests of real clusters find things, what they make there, and how they wait."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm_ops.contracts.record import digest_path

if TYPE_CHECKING:
    from newcomer import Checkout

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("AUTOGLM_TEST_IMAGE", "")
BARE = os.environ.get("AUTOGLM_BARE_IMAGE", "localhost/pause:1")
HOST = os.environ.get("AUTOGLM_POD_HOST", "10.244.0.1")
"""Where a pod reaches this machine."""
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "BENCH_SECRET")


def wait_for(ask: Callable[[], Any], seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)
    return found


def make_namespace(core: Any) -> str:
    name = f"autoglm-test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    wait_for(lambda: any(item.metadata.name == "default" for item in core.list_namespaced_service_account(name).items))
    return name


def placement(namespace: str, store: str, plain: Mapping[str, str]) -> dict[str, str]:
    """What the README's chapter "Production" has a team set, as environment variables."""
    return {
        "AUTOGLM__STORE__URI": store,
        "AUTOGLM__CLUSTER__BACKEND": "kubernetes",
        "AUTOGLM__CLUSTER__IMAGE": IMAGE or BARE,
        "AUTOGLM__CLUSTER__ENVIRONMENT": json.dumps(dict(plain)),
        "AUTOGLM__CLUSTER__SECRETS": "[AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]",
        "AUTOGLM__CLUSTER__KUBERNETES__NAMESPACE": namespace,
        "AUTOGLM__CLUSTER__KUBERNETES__IMAGES": json.dumps([IMAGE or BARE]),
        "AUTOGLM__CLUSTER__KUBERNETES__SECRET": "team-keys",
        "PYTHONPATH": os.pathsep.join(
            [*([] if IMAGE else [str(ROOT / "tests" / "cluster" / "mounting")]), str(ROOT), str(ROOT / "plugins")]
        ),
    }


def give_keys(core: Any, namespace: str, values: Mapping[str, str]) -> None:
    """The team's Secret."""
    core.create_namespaced_secret(
        namespace, {"metadata": {"name": "team-keys"}, "stringData": {key: values[key] for key in SECRETS}}
    )


def log_of(core: Any, name: str, namespace: str) -> str:
    """What a pod has said; nothing when there is none."""
    from kubernetes.client.exceptions import ApiException

    try:
        return str(core.read_namespaced_pod_log(name, namespace)) if name else ""
    except ApiException:
        return ""


@contextmanager
def reachable_s3(core: Any, namespace: str, folder: Path) -> Iterator[Mapping[str, str]]:
    """A real S3 server where pods reach it: the first pod of a node makes the network that it listens on."""
    from s3_server import serve_s3

    wait_for(lambda: _created(core, namespace))
    wait_for(lambda: core.read_namespaced_pod("first", namespace).status.pod_ip)
    core.delete_namespaced_pod("first", namespace, grace_period_seconds=0)
    with serve_s3(folder, HOST) as environment:
        yield environment


def _created(core: Any, namespace: str) -> bool:
    """A namespace of an older cluster takes pods only once its service account has a token."""
    from kubernetes.client.exceptions import ApiException

    try:
        core.create_namespaced_pod(
            namespace, {"metadata": {"name": "first"}, "spec": {"containers": [{"name": "x", "image": BARE}]}}
        )
    except ApiException:
        return False
    return True


def replayed(checkout: Checkout, root: Path) -> None:
    """Replay builds every output of the run again, on this machine, and compares the digests."""
    before = digest_path(root / "out" / "train")
    lines = checkout.call("replay", root.name, "--json", seconds=900).splitlines()
    [line] = [line for line in lines if '"identical"' in line]
    assert json.loads(line)["identical"] is True and digest_path(root / "out" / "train") == before
