"""What a team needs on Kubernetes before its first job, as manifests for an administrator's `kubectl apply`: pure, like `pod`.

A namespace that takes only pods of the standard "restricted", how much of the cluster it may hold, a network without strangers, an
account without a token for its jobs, and one for whoever launches them (Airflow), which may do that and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from autoglm_ops.cluster.pod import APP, TEAM, Manifest, checked, cores, memory
from autoglm_ops.contracts.placement import KubernetesPlace, Quota
from autoglm_ops.errors import UsageError

LAUNCHER = "launcher"
_RBAC = "rbac.authorization.k8s.io"


def manifests(team: str, place: KubernetesPlace, quota: Quota, ports: Collection[int]) -> list[Manifest]:
    """In the order to be applied. ports: TCP ports that its jobs reach outside the namespace (the artefact store's).

    Raises UsageError for a namespace or an account that is not a team's own.
    """
    if place.namespace == "default" or place.namespace.startswith("kube-"):
        raise UsageError(
            f"the namespace {place.namespace} is Kubernetes' own, and no team's; name another in cluster.kubernetes.namespace"
        )
    if place.service_account == LAUNCHER:
        raise UsageError(
            f"cluster.kubernetes.service_account is {LAUNCHER}, who may start pods; the jobs themselves need another, without rights"
        )
    labels = checked({TEAM: team})
    return [
        _namespace(place.namespace, labels),
        *(_with(place.namespace, labels, manifest) for manifest in (*_amounts(quota), *_network(ports), *_accounts(place))),
    ]


def _namespace(name: str, labels: dict[str, str]) -> Manifest:
    standard = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**labels, **standard}}}


def _with(namespace: str, labels: dict[str, str], manifest: Manifest) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace, "labels": dict(labels)}}


def _amounts(quota: Quota) -> list[Manifest]:
    """A quota refuses what exceeds it, by its name. What a pod does not name it gets, so that the quota can count it."""
    hard = {"pods": None if quota.pods is None else str(quota.pods)}
    for kind in ("requests", "limits"):
        hard |= {f"{kind}.{name}": amount for name, amount in _sizes(quota.cpu, quota.memory_gib).items()}
    hard["requests.nvidia.com/gpu"] = None if quota.gpus is None else str(quota.gpus)
    limit: dict[str, Any] = {
        "type": "Container",
        "default": _sizes(quota.default_cpu, quota.default_memory_gib),
        "defaultRequest": _sizes(quota.default_cpu, quota.default_memory_gib),
    }
    if most := _sizes(quota.most_cpu, quota.most_memory_gib):
        limit["max"] = most
    return [
        _manifest(
            "v1", "ResourceQuota", "team-quota", spec={"hard": {name: amount for name, amount in hard.items() if amount}}
        ),
        _manifest("v1", "LimitRange", "team-limits", spec={"limits": [limit]}),
    ]


def _sizes(cpu: float | None, gib: float | None) -> dict[str, str]:
    found = {"cpu": None if cpu is None else cores(cpu), "memory": None if gib is None else memory(gib)}
    return {name: amount for name, amount in found.items() if amount is not None}


def _network(ports: Collection[int]) -> list[Manifest]:
    """Nobody talks to a job but jobs of the namespace, and a job only to them, to the name server, and to `ports` of anybody."""
    egress = [
        {"to": [{"podSelector": _jobs()}]},
        {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]},
        {"ports": [{"protocol": "TCP", "port": port} for port in sorted(ports)]},
    ]
    jobs = {
        "podSelector": _jobs(),
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": _jobs()}]}],
        "egress": egress if ports else egress[:-1],
    }
    return [
        _manifest(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "default-deny",
            spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        ),
        _manifest("networking.k8s.io/v1", "NetworkPolicy", "jobs", spec=jobs),
    ]


def _jobs() -> dict[str, Any]:
    return {"matchLabels": {"app.kubernetes.io/name": APP}}


def _accounts(place: KubernetesPlace) -> list[Manifest]:
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "list", "watch", "delete"]},
        {"apiGroups": [""], "resources": ["pods/log", "events"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["resourcequotas"], "verbs": ["get", "list"]},
    ]
    role = {"apiGroup": _RBAC, "kind": "Role", "name": LAUNCHER}
    subject = {"kind": "ServiceAccount", "name": LAUNCHER, "namespace": place.namespace}
    return [
        _manifest("v1", "ServiceAccount", place.service_account, automountServiceAccountToken=False),
        _manifest("v1", "ServiceAccount", LAUNCHER),
        _manifest(f"{_RBAC}/v1", "Role", LAUNCHER, rules=rules),
        _manifest(f"{_RBAC}/v1", "RoleBinding", LAUNCHER, roleRef=role, subjects=[subject]),
    ]


def _manifest(version: str, kind: str, name: str, **more: Any) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}
