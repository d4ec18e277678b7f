"""The teams of params.yaml as manifests: each as its own settings say, a namespace once."""

from __future__ import annotations

from typing import Any

import pytest
from hostile_strings import no_name

from autoglm_ops.errors import SettingsError, UsageError
from autoglm_ops.settings import Settings, resolve
from autoglm_ops.stages.teams import manifests, ports

TEAMS = {
    "vision": {"kubernetes": {"namespace": "vision"}, "quota": {"gpus": 8}},
    "speech": {"priority": "high"},
}


def settings(teams: Any = TEAMS, **more: Any) -> Settings:
    return resolve({"cluster": {"quota": {"cpu": 32}, "teams": teams, **more}})


def quotas(found: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {one["metadata"]["namespace"]: one["spec"]["hard"] for one in found if one["kind"] == "ResourceQuota"}


def test_each_team_has_its_own_over_the_others() -> None:
    found = quotas(manifests(settings()))
    assert found.keys() == {"autoglm", "vision"}, "speech shares the namespace of the default team, and its quota"
    assert (found["autoglm"]["requests.nvidia.com/gpu"], found["vision"]["requests.nvidia.com/gpu"]) == ("4", "8")
    assert found["vision"]["requests.cpu"] == "32"
    assert quotas(manifests(settings(), "vision")).keys() == {"vision"}


def test_a_namespace_is_not_given_two_quotas() -> None:
    with pytest.raises(SettingsError, match="the teams default and speech share the namespace autoglm"):
        manifests(settings({"speech": {"quota": {"gpus": 0}}}))


def test_a_team_nobody_knows_is_said_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown team 'vison'; did you mean 'vision'"):
        manifests(settings(), "vison")
    with pytest.raises(UsageError, match="known: default, vision, speech"):
        manifests(settings(), "$(id)")


def test_hostile_teams_are_refused_before_anything_is_rendered() -> None:
    for text in no_name():
        with pytest.raises((UsageError, SettingsError)):
            manifests(settings({text: {}}))


def test_a_quota_that_lets_no_pod_start_is_a_wrong_setting() -> None:
    for wrong in ({"cpu": 0.5}, {"most_memory_gib": 1}, {"pods": 0}, {"gpus": -1}, {"no_such": 1}):
        with pytest.raises(SettingsError):
            settings(quota=wrong)


@pytest.mark.parametrize(
    ("environment", "studies", "expected"),
    [
        ({}, None, {443}),
        ({"AWS_ENDPOINT_URL": "http://s3.example"}, None, {80}),
        ({"AWS_ENDPOINT_URL": "http://s3.example", "AWS_ENDPOINT_URL_S3": "https://s3.example:8333"}, None, {8333}),
        ({}, "postgresql://u:p@db.example/x", {443, 5432}),
        ({}, "postgresql://u:p@db.example:6000/x", {443, 6000}),
        ({}, "postgresql://me:kR3/canary@db:6000/x", {443, 6000}),
    ],
)
def test_the_network_leads_where_the_settings_do(environment: dict[str, str], studies: str | None, expected: set[int]) -> None:
    assert ports(settings(environment=environment).cluster, studies) == expected


def test_an_address_that_cannot_be_read_is_said() -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        manifests(settings(environment={"AWS_ENDPOINT_URL": "http://s3.example:99999"}))
