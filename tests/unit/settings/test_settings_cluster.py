"""`cluster` by team: laid over, checked like any other setting."""

from __future__ import annotations

import pytest

from autoglm_ops.errors import SettingsError
from autoglm_ops.settings import resolve
from autoglm_ops.stages import snapshot

TREE = {
    "cluster": {
        "resources": {"cpu": 2, "memory_gib": 4},
        "kubernetes": {"namespace": "autoglm", "secret": "keys"},
        "teams": {"vision": {"resources": {"gpus": 4}, "priority": "high", "kubernetes": {"namespace": "vision"}}},
    }
}


def test_a_teams_settings_are_laid_over_the_others() -> None:
    cluster = resolve(TREE).cluster.of_team("vision")
    assert (cluster.team, cluster.priority, cluster.resources.gpus, cluster.resources.cpu) == ("vision", "high", 4, 2)
    assert (cluster.kubernetes.namespace, cluster.kubernetes.secret) == ("vision", "keys")
    assert resolve(TREE).cluster.of_team("nobody").kubernetes.namespace == "autoglm"


@pytest.mark.parametrize(
    ("team", "said"),
    [
        ({"deadline_seconds": 1}, "teams.a may not set 'deadline_seconds'"),
        ({"kubernetes": {"namespace": "Not A Name"}}, "namespace"),
        ({"kubernetes": {"user": 0}}, "greater than or equal to 1"),
        ({"resources": {"gpus": -1}}, "gpus"),
        ({"kubernetes": {"no_such_key": 1}}, "no_such_key"),
    ],
)
def test_a_teams_wrong_setting_is_said_before_any_work(team: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        resolve({"cluster": {"teams": {"a": team}}})


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD", "OPENAI_API_KEY", "AWS_ACCESS_KEY_ID"])
def test_a_secret_is_named_and_never_written(name: str) -> None:
    for cluster in ({"environment": {name: "x"}}, {"teams": {"a": {"environment": {name: "x"}}}}):
        with pytest.raises(SettingsError, match=r"name it in cluster\.secrets"):
            resolve({"cluster": cluster})


def test_the_plan_is_made_for_where_training_goes() -> None:
    there = {"backend": "kubernetes", "resources": {"gpus": 2, "nodes": 2, "gpu": "h100-80g"}}
    assert snapshot.training_hardware(resolve({"cluster": there})).gpus == 4
    assert snapshot.training_hardware(resolve({"cluster": {**there, "backend": "local"}})) == snapshot.hardware()
    assert snapshot.training_hardware(resolve({"cluster": {**there, "stages": ["tune"]}})) == snapshot.hardware()
    with pytest.raises(SettingsError, match="names no kind"):
        snapshot.training_hardware(resolve({"cluster": {**there, "resources": {"gpus": 1}}}))
