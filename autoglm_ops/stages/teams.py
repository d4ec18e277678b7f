"""The teams of params.yaml as manifests: what a cluster's administrator applies for them."""

from __future__ import annotations

from difflib import get_close_matches
from urllib.parse import urlsplit

from autoglm_ops.cluster import team as rendering
from autoglm_ops.cluster.pod import Manifest
from autoglm_ops.errors import SettingsError, UsageError
from autoglm_ops.logs import without_password
from autoglm_ops.settings import Settings
from autoglm_ops.settings.placement import Cluster

HTTP, HTTPS, POSTGRES = 80, 443, 5432


def manifests(settings: Settings, team: str | None = None) -> list[Manifest]:
    """Those of `team`, or of `cluster.team` and every one of `cluster.teams`; teams that share a namespace have it once.

    Raises UsageError for a team nobody knows, SettingsError where teams share a namespace and differ in what it may hold.
    """
    cluster = settings.cluster
    known = list(dict.fromkeys([cluster.team, *cluster.teams]))
    if team is not None and team not in known:
        near = get_close_matches(team, known, n=1)
        raise UsageError(
            f"unknown team {team[:80]!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")
        )
    found: dict[str, tuple[str, list[Manifest]]] = {}
    for name in known if team is None else [team]:
        own = cluster.of_team(name)
        first, made = found.setdefault(own.kubernetes.namespace, (name, _of(own, name, settings)))
        if made != _of(own, first, settings):
            raise SettingsError(
                f"the teams {first} and {name} share the namespace {own.kubernetes.namespace} and differ in its quota, account or "
                "store; give each a namespace (cluster.teams.NAME.kubernetes.namespace), or the same quota"
            )
    return [manifest for _, made in found.values() for manifest in made]


def _of(cluster: Cluster, team: str, settings: Settings) -> list[Manifest]:
    return rendering.manifests(team, cluster.kubernetes, cluster.quota, ports(cluster, settings.tracking.studies))


def ports(cluster: Cluster, studies: str | None) -> set[int]:
    """What jobs reach outside their namespace: the artefact store, and the server of tuning studies where there is one."""
    environment = cluster.environment
    store = _port(environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or "", HTTPS)
    return {store} if studies is None else {store, _port(studies, POSTGRES)}


def _port(url: str, usual: int) -> int:
    try:
        parts = urlsplit(without_password(url))  # whose / would end the host, and be said as a port
        return parts.port or (HTTP if parts.scheme == "http" else usual)
    except ValueError as error:
        raise SettingsError(f"an address that jobs are to reach cannot be read: {error}") from error
