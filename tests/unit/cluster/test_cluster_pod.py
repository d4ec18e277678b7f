"""What a job becomes as a pod: restricted, without a secret's value, and no hostile string turns into anything else (F27, F28)."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hostile_strings import hostile
from pod_standard import restricted

from autoglm_ops.cluster.pod import pods
from autoglm_ops.contracts.cluster import JobSpec, Resources
from autoglm_ops.contracts.placement import KubernetesPlace
from autoglm_ops.errors import Refused, UsageError

KEY = "ab" * 32
IMAGE = "registry.local/autoglm/trainer@sha256:" + "0" * 64
PLACE = KubernetesPlace(secret="team-keys", images=("localhost/trainer:1",))


def job(**more: Any) -> JobSpec:
    base = {
        "name": "train",
        "command": ("python", "-m", "autoglm_ops.cluster.remote", KEY),
        "key": KEY,
        "attempt": 1,
        "image": "localhost/trainer:1",
    }
    return JobSpec(**{**base, "store": "s3://models/x", **more})


def shape(value: Any) -> Any:
    """A manifest without its strings: what can only differ when a value became structure."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    return [shape(item) for item in value] if isinstance(value, list) else type(value).__name__


def test_a_pod_is_restricted_and_holds_no_token() -> None:
    [pod] = pods(job(secrets=("AWS_SECRET_ACCESS_KEY",), resources=Resources(gpus=2, cpu=1.5, memory_gib=4)), PLACE)
    assert restricted(pod) == []
    assert pod["spec"]["automountServiceAccountToken"] is False
    limits = pod["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "1500m", "memory": "4Gi", "nvidia.com/gpu": "2"}


def test_secrets_are_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "correct-horse")
    [pod] = pods(job(secrets=("AWS_SECRET_ACCESS_KEY",)), PLACE)
    assert "correct-horse" not in json.dumps(pod)
    [entry] = [item for item in pod["spec"]["containers"][0]["env"] if item["name"] == "AWS_SECRET_ACCESS_KEY"]
    assert entry["valueFrom"] == {"secretKeyRef": {"name": "team-keys", "key": "AWS_SECRET_ACCESS_KEY"}}
    with pytest.raises(UsageError, match="names no Secret"):
        pods(job(secrets=("X",)), PLACE.model_copy(update={"secret": None}))


@pytest.mark.parametrize("text", hostile())
def test_a_hostile_string_stays_a_string(text: str) -> None:
    assert len(hostile()) == 300
    plain = pods(job(environment={"A": "x"}, command=("python", "x")), PLACE)
    given = pods(job(environment={"A": text}, command=("python", text)), PLACE)
    assert shape(given) == shape(plain)
    for value in (given[0]["spec"]["containers"][0]["command"][1], given[0]["spec"]["containers"][0]["env"][0]["value"]):
        assert value.replace("$$", "$") == text and "$(" not in value.replace("$$", "")
    for field in ("name", "team", "image", "priority", "store", "key"):
        made: list[dict[str, Any]] = []
        try:
            made = pods(JobSpec.model_validate({**job().model_dump(), field: text}), PLACE)
        except (UsageError, Refused, ValueError):
            continue
        assert all(restricted(pod) == [] and shape(pod) == shape(pods(job(), PLACE)[0]) for pod in made)
        assert field not in ("name", "key", "team", "image") or made == pods(job(**{field: text}), PLACE)
    with pytest.raises(UsageError):
        pods(job(environment={text: "1"}), PLACE)
    with pytest.raises((UsageError, Refused)):
        pods(job(image=text), PLACE)


@pytest.mark.parametrize(
    "name",
    ["PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "HOME", "AUTOGLM_JOB_STORE", "AUTOGLM_NODE_RANK", "1A", "", "A-B"],
)
def test_a_job_does_not_replace_what_decides_what_runs(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be set for a job"):
        pods(job(environment={name: "x"}), PLACE)


@pytest.mark.parametrize(
    ("image", "images", "fine"),
    [
        ("localhost/trainer:1", ("localhost/trainer:1",), True),
        ("localhost/trainer:2", ("localhost/trainer:1",), False),
        (IMAGE, (), True),
        (IMAGE, ("registry.local/autoglm/trainer",), True),
        (IMAGE, ("registry.local/autoglm",), False),
        ("registry.local/autoglm/trainer:latest", ("registry.local/autoglm/trainer",), False),
        ("localhost/trainer:1", (), False),
    ],
)  # fmt: skip
def test_only_listed_or_pinned_images_run(image: str, images: tuple[str, ...], fine: bool) -> None:
    place = PLACE.model_copy(update={"images": images})
    if fine:
        assert pods(job(image=image), place)[0]["spec"]["containers"][0]["image"] == image
    else:
        with pytest.raises(Refused, match=r"cluster\.kubernetes\.images"):
            pods(job(image=image), place)


@pytest.mark.parametrize("image", [f"a{'_' * 200}!", f"a{'_a' * 100}!", f"a{'.__-' * 60}!", "a" * 100_000 + "!"])
def test_no_name_of_an_image_takes_long_to_refuse(image: str) -> None:
    """A '_' had been part of a word and between words: each more of them had doubled the time."""
    began = time.monotonic()
    with pytest.raises(UsageError, match="no image's name"):
        pods(job(image=image), PLACE)
    assert time.monotonic() - began < 1


def test_words_of_an_image_may_hold_underscores() -> None:
    for image in ("a__b/c_d:1_2", "registry.local:5000/a_b/c:v1", "a/b__"):
        assert pods(job(image=image), PLACE.model_copy(update={"images": (image,)}))


@pytest.mark.parametrize("store", [None, "/srv/store", "file:///srv", "store"])
def test_a_pod_needs_a_store_it_can_reach(store: str | None) -> None:
    with pytest.raises(UsageError, match="store"):
        pods(job(store=store), PLACE)


def test_several_nodes_are_several_pods_with_ranks() -> None:
    made = pods(job(resources=Resources(nodes=2)), PLACE)
    assert [pod["metadata"]["name"][-2:] for pod in made] == ["-0", "-1"]
    ranks = [
        {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}["AUTOGLM_NODE_RANK"] for pod in made
    ]
    assert ranks == ["0", "1"]


def test_a_team_is_placed_where_its_settings_say() -> None:
    place = PLACE.model_copy(
        update={
            "node_selector": {"pool": "gpu"}, "tolerations": ({"key": "gpu", "operator": "Exists"},), "priority_classes": {"high": "urgent"},
            "affinity": {"podAntiAffinity": {}}, "queue": "vision", "service_account": "trainer",
        }
    )  # fmt: skip
    [pod] = pods(job(team="vision", priority="high"), place)
    spec = pod["spec"]
    assert (spec["nodeSelector"], spec["priorityClassName"], spec["serviceAccountName"]) == (
        {"pool": "gpu"},
        "urgent",
        "trainer",
    )
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}] and spec["affinity"] == {"podAntiAffinity": {}}
    assert (
        pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "vision"
        and pod["metadata"]["labels"]["autoglm.team"] == "vision"
    )


def test_a_queue_admits_all_pods_of_a_job_or_none() -> None:
    place, count = PLACE.model_copy(update={"queue": "vision"}), "kueue.x-k8s.io/pod-group-total-count"
    [alone] = pods(job(), place)
    assert "pod-group" not in str(alone["metadata"])
    several = job(resources=Resources(nodes=3))
    found = [pod["metadata"] for pod in pods(several, place)]
    assert [each["labels"]["kueue.x-k8s.io/pod-group-name"] for each in found] == [several.handle] * 3
    assert [(each["annotations"][count], each["annotations"]["kueue.x-k8s.io/retriable-in-group"]) for each in found] == [
        ("3", "false")
    ] * 3
    assert not any("kueue" in str(pod["metadata"]) for pod in pods(several, PLACE))
