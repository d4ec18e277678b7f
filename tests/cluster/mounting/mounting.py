"""Pods with this machine's interpreter, packages and checkout in them, read-only: for tests without a built image.

`sitecustomize` beside this file does the same to a process that has this folder on its PYTHONPATH, since it reads it when it starts.
"""

from __future__ import annotations

import os
import site
import sys
from pathlib import Path
from typing import Any

from autoglm_ops.cluster import pod
from autoglm_ops.contracts.cluster import JobSpec
from autoglm_ops.contracts.placement import KubernetesPlace

ROOT = Path(__file__).parents[3]
_rendered = pod.pods


def pods(job: JobSpec, place: KubernetesPlace) -> list[dict[str, Any]]:
    return [_mounted(manifest) for manifest in _rendered(job, place)]


def _mounted(manifest: dict[str, Any]) -> dict[str, Any]:
    python = Path(sys.executable).resolve().parents[1]
    system = [path for name in ("usr", "bin", "lib", "lib64", "etc/ssl") if (path := Path("/") / name).exists()]
    folders = dict.fromkeys([*system, python, Path(sys.prefix), ROOT, *map(Path, site.getsitepackages())])
    tops = [one for one in folders if not any(one != other and one.is_relative_to(other) for other in folders)]
    spec = manifest["spec"]
    [container] = spec["containers"]
    for at, folder in enumerate(tops):
        spec["volumes"].append({"name": f"host-{at}", "hostPath": {"path": str(folder.resolve()), "type": "Directory"}})
        container["volumeMounts"].append({"name": f"host-{at}", "mountPath": str(folder), "readOnly": True})
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    container["env"] += [{"name": "PATH", "value": path}, {"name": "PYTHONPATH", "value": str(ROOT)}]
    return manifest
