"""The sections of params.yaml that say where things are and how they are kept going. They never change what a stage puts out."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from autoglm_ops.contracts.cluster import LOOKS_SECRET, Resources
from autoglm_ops.contracts.placement import KubernetesPlace, Quota
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.settings.kinds import Count, Name, Positive, Section


def absolute(uri: str | None) -> str | None:
    """`uri` as it is. Raises ValueError for a folder, or a file of SQLite, whose place hangs on where a process was started."""
    kind, rest = urlsplit(uri or "").scheme.lower(), (uri or "").partition(":")[2].removeprefix("//")
    path = uri if not kind else rest if kind == "file" else rest.removeprefix("/") if kind.startswith("sqlite") else None
    if path is not None and not path.startswith("/"):
        raise ValueError("a relative path means another folder in every run's workspace; write an absolute one")
    return uri


class StoreSettings(Section):
    uri: str | None = None
    """Where artefacts live: a folder, absolute, or s3://bucket/prefix; null is a folder under $AUTOGLM_HOME."""

    _one_place_for_all_runs = field_validator("uri")(absolute)


class Tracking(Section):
    uri: str | None = None
    """The MLflow tracking and registry URI, its path absolute where it is a folder or SQLite; null is SQLite under $AUTOGLM_HOME."""
    experiment: str = "autoglm"
    studies: str | None = None
    """A PostgreSQL URL that keeps tuning studies on a server; null is SQLite in the run's scratch. It may hold a password: give it by environment."""

    @field_validator("uri")
    @classmethod
    def _one_place_for_all_runs(cls, value: str | None) -> str | None:
        return value if value in ("databricks", "databricks-uc", "uc") else absolute(value)  # words of MLflow's own


Away = Literal["validate", "prepare", "tokenize", "plan", "tune", "train", "evaluate", "gate", "report", "dataset"]


OF_A_TEAM = frozenset({"resources", "priority", "slots", "quota", "image", "environment", "secrets", "kubernetes", "slurm"})


class Cluster(Section):
    backend: Literal["local", "kubernetes", "slurm"] = "local"
    """Where the stages named below run; everything else runs here."""
    stages: tuple[Away, ...] = ("tune", "train")
    """What leaves this machine; `dataset` is the shards of a dataset's build. `ingest` and the effects do not: they look at the world."""
    rehearse: bool = False
    """With the local backend: these stages run here as on a cluster, in a fresh folder, through the store."""
    deadline_seconds: Positive = 3600.0
    start_seconds: Positive = 600.0
    """How long a job may wait for its place, its image and its inputs."""
    team: Name = "default"
    priority: Literal["low", "normal", "high"] = "normal"
    slots: int | None = Field(default=None, ge=1)
    """Mapped tasks (trials, shards of data) that the team may have at once, over all DAG runs: an Airflow pool, autoglm-TEAM; null is no bound.
    And the trials of a round that a stage outside Airflow sends away, of which so many run at once."""
    quota: Quota = Quota()
    """What `autoglm cluster manifests` renders for the team: how much of Kubernetes it may have."""
    image: str | None = None
    """What jobs run in: the trainer image (docker/trainer.Dockerfile), by digest or tag."""
    resources: Resources = Resources()
    environment: dict[str, str] = {}
    """For jobs; no secrets here, they are named below."""
    secrets: tuple[str, ...] = ()
    """Environment variables that hold secrets: taken from this process, or from the cluster's own secret of the team."""
    kubernetes: KubernetesPlace = KubernetesPlace()
    slurm: SlurmPlace = SlurmPlace()
    teams: dict[str, dict[str, Any]] = {}
    """Team -> what is different for it: any of resources, priority, slots, quota, image, environment, secrets, kubernetes and slurm."""

    @field_validator("environment")
    @classmethod
    def _holds_no_secret(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if LOOKS_SECRET.search(name):
                raise ValueError(f"{name} looks like a secret, and this ends up in records; name it in cluster.secrets instead")
        return value

    @model_validator(mode="after")
    def _teams_are_settings(self) -> Cluster:
        for team in self.teams:
            self.of_team(team)
        return self

    def of_team(self, team: str) -> Cluster:
        """These settings as they are for `team`. Raises ValueError for a key that is not among those above."""
        own = self.teams.get(team, {})
        if unknown := own.keys() - OF_A_TEAM:
            raise ValueError(f"teams.{team} may not set {sorted(unknown)[0]!r}")
        tree = self.model_dump(exclude={"teams"})
        for key, value in own.items():
            tree[key] = {**tree[key], **value} if isinstance(value, dict) and isinstance(tree[key], dict) else value
        return Cluster.model_validate({**tree, "team": team})


class Recovery(Section):
    restarts: int = Field(default=3, ge=0)
    """Restarts of the training group in a row that bring no newer checkpoint; a newer one refills them."""
    hang_seconds: float | None = Field(default=None, gt=0)
    """Without a beat for this long a rank hangs; null follows the longest pause measured so far."""
    backoff_seconds: float = Field(default=1.0, ge=0)
    """The second restart in a row waits this long, later ones twice as long and more; the first does not wait."""
    checkpoint_steps: int | None = Field(default=100, ge=1)
    """A checkpoint after so many steps, beside those after evaluations; null leaves it at those."""
    checkpoint_seconds: float | None = Field(default=5.0, gt=0)
    """And about so many seconds after the last one, later where writing takes long; null for steps alone."""


class Serving(Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    max_batch: Count = 32
    batch_wait_ms: float = Field(default=2.0, ge=0)
    refresh_seconds: Positive = 2.0
    """How often the alias is looked up."""
    queue: Count = 1024
    """Texts that may wait for the model, and requests that may be open; more are answered 503."""
    deadline_seconds: Positive = 30.0
    """From a request's first byte of body to its answer."""


class Notify(Section):
    kind: Literal["log", "file"] = "log"
    """Who hears of a failure: the log, or a line in $AUTOGLM_HOME/notices.jsonl as well."""
