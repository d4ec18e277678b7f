"""What an administrator applies for a team: shapes the API knows, amounts that are the settings', and no name that is not the team's."""

from __future__ import annotations

from typing import Any

import pytest
from api_schema import read
from hostile_strings import no_name
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoglm_ops.cluster.podstate import amount
from autoglm_ops.cluster.team import manifests
from autoglm_ops.contracts.placement import KubernetesPlace, Quota
from autoglm_ops.errors import UsageError

PLACE = KubernetesPlace(namespace="vision", service_account="jobs")
sizes = st.none() | st.floats(0.5, 1e4)


def rendered(quota: Quota, place: KubernetesPlace = PLACE) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["kind"], one["metadata"]["name"]): one for one in manifests("vision", place, quota, {443, 5432})}


def test_what_the_api_knows_and_nothing_else() -> None:
    found = rendered(Quota())
    assert [kind for kind, _ in found] == [
        "Namespace", "ResourceQuota", "LimitRange", "NetworkPolicy", "NetworkPolicy", "ServiceAccount", "ServiceAccount", "Role", "RoleBinding"
    ]  # fmt: skip
    assert [read(one, f"V1{kind}").metadata.labels["autoglm.team"] for (kind, _), one in found.items()] == ["vision"] * 9
    assert {one["metadata"].get("namespace") for (kind, _), one in found.items() if kind != "Namespace"} == {"vision"}


def test_the_defaults_are_what_they_say() -> None:
    found = rendered(Quota())
    assert found["ResourceQuota", "team-quota"]["spec"]["hard"] == {
        "pods": "20", "requests.cpu": "16", "requests.memory": "64Gi", "limits.cpu": "16", "limits.memory": "64Gi", "requests.nvidia.com/gpu": "4"
    }  # fmt: skip
    [limit] = found["LimitRange", "team-limits"]["spec"]["limits"]
    assert limit["default"] == limit["defaultRequest"] == {"cpu": "1", "memory": "2Gi"}
    assert limit["max"] == {"cpu": "8", "memory": "32Gi"}
    assert found["Namespace", "vision"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_who_may_do_what_and_who_holds_no_token() -> None:
    found = rendered(Quota())
    assert found["ServiceAccount", "jobs"]["automountServiceAccountToken"] is False
    assert "pods/exec" not in str(found["Role", "launcher"]) and "secrets" not in str(found["Role", "launcher"])
    [subject] = found["RoleBinding", "launcher"]["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "launcher", "namespace": "vision"}


def test_no_stranger_on_the_network() -> None:
    found = rendered(Quota())
    assert found["NetworkPolicy", "default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    egress = found["NetworkPolicy", "jobs"]["spec"]["egress"]
    assert [port["port"] for rule in egress for port in rule.get("ports", ())] == [53, 53, 443, 5432]
    closed = manifests("vision", PLACE, Quota(), ())
    rules = next(one["spec"]["egress"] for one in closed if one["metadata"]["name"] == "jobs")
    assert all(rule.get("to") or rule.get("ports") for rule in rules), "a rule that names neither allows everything"


@given(sizes, sizes, st.none() | st.integers(0, 1000), st.none() | st.integers(1, 1000))
def test_any_amounts_are_said_as_kubernetes_reads_them(
    cpu: float | None, gib: float | None, gpus: int | None, pods: int | None
) -> None:
    given = {"cpu": cpu, "memory_gib": gib, "gpus": gpus, "pods": pods}
    try:
        quota = Quota(**given, most_cpu=None, most_memory_gib=None)
    except ValidationError:
        assume(False)
    found = rendered(quota)
    hard = found["ResourceQuota", "team-quota"]["spec"]["hard"]
    read(found["ResourceQuota", "team-quota"], "V1ResourceQuota")
    read(found["LimitRange", "team-limits"], "V1LimitRange")
    said = [hard.get(f"{kind}.cpu") for kind in ("requests", "limits")]
    assert said == [None] * 2 if cpu is None else [amount(one) for one in said if one] == pytest.approx([cpu] * 2, abs=1e-3)
    assert ("requests.memory" in hard) == (gib is not None) == ("limits.memory" in hard)
    if gib is not None:
        assert amount(hard["limits.memory"]) == pytest.approx(gib * 2**30, abs=2**20)
    assert hard.get("pods") == (None if pods is None else str(pods))
    assert hard.get("requests.nvidia.com/gpu") == (None if gpus is None else str(gpus))


@pytest.mark.parametrize("namespace", ["default", "kube-system", "kube-public"])
def test_a_namespace_of_kubernetes_is_no_teams(namespace: str) -> None:
    with pytest.raises(UsageError, match=f"the namespace {namespace} is Kubernetes' own"):
        manifests("vision", KubernetesPlace(namespace=namespace), Quota(), {443})


def test_jobs_do_not_run_as_who_may_start_pods() -> None:
    with pytest.raises(UsageError, match="another, without rights"):
        manifests("vision", KubernetesPlace(service_account="launcher"), Quota(), {443})


@pytest.mark.parametrize("field", ["team", "namespace", "service_account"])
def test_hostile_names_are_refused(field: str) -> None:
    """Every one of them is; what a name may be is said by the settings' types and by the labels'."""
    for text in no_name():
        with pytest.raises((UsageError, ValidationError)):
            place = KubernetesPlace(**({} if field == "team" else {field: text}))
            manifests(text if field == "team" else "vision", place, Quota(), {443})
