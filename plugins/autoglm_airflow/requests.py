"""What a DAG run asks for, as arguments of `autoglm runs open`: its params, its day, and whether it may promote."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from airflow.sdk.exceptions import AirflowFailException

from autoglm_airflow.command import checkout

_OF_THE_DEPLOYMENT = (
    "cluster.image",
    "cluster.kubernetes",
    "cluster.slurm",
    "cluster.secrets",
    "cluster.environment",
    "cluster.teams",
    "cluster.quota",
    "store",
    "tracking",
)
_KEY = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Request:
    """One call of `autoglm runs open`. `promote` None leaves the setting alone."""

    dag: str
    dag_run_id: str
    as_of: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    promote: bool | None = None

    def arguments(self) -> list[str]:
        """Every value is one argument of its own, after `=`: nothing a form holds can become an option (threats F27)."""
        sets = [f"--set={key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(self.overrides.items())]
        promote = [] if self.promote is None else ["--promote" if self.promote else "--no-promote"]
        return [f"--dag={self.dag}", f"--dag-run-id={self.dag_run_id}", f"--as-of={self.as_of}", *sets, *promote]


def of(context: Any, settings: Mapping[str, str], fixed: Mapping[str, Any], promote: bool | None) -> Request:
    """The request of a DAG run: `set` and the fields of its form, over what the DAG always sets.

    A backfilled run never promotes unless asked. Raises AirflowFailException for a conf key that no param has.
    """
    params, run = context["params"], context["dag_run"]
    known_keys(run.conf or {}, list(params))
    overrides = {**fixed, **{key: params[name] for name, key in settings.items() if params.get(name) is not None}}
    overrides.update(allowed(params.get("set") or {}))
    if params.get("tune") is not None:
        overrides["tune.enabled"] = params["tune"]
    asked = params.get("promote")
    may = asked if asked is not None else False if run.run_type == "backfill" else promote
    return Request(context["dag"].dag_id, run.run_id, day_of(context), overrides, may)


def allowed(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a form may set: not which image runs, where, with which secrets, and not where stores are (threats F27).

    A key is a plain name: blanks around it, or a value behind it, would make it another one where it is read.
    """
    for key in asked:
        if not _KEY.fullmatch(str(key)):
            raise AirflowFailException(f"{str(key)[:80]!r} is no setting's name: letters, digits, '_', '-' and dots between")
        if key == "cluster" or key.startswith(_OF_THE_DEPLOYMENT):
            raise AirflowFailException(f"{key} is set by the deployment (params.yaml or its environment), not by a run")
    return asked


def day_of(context: Any) -> str:
    """The run's day: the `as_of` param, else the day of the logical date, else (an asset started it) the day it may run after."""
    asked = context["params"].get("as_of")
    run = context["dag_run"]
    moment = context.get("logical_date") or run.run_after
    return str(asked) if asked else moment.date().isoformat()


def judged_day(context: Any) -> str:
    """The day a watching DAG judges. A scheduled run looks back on the hour that has ended: the one at midnight closes the day before,
    whose last hour nobody else would look at.
    """
    run, moment = context["dag_run"], context.get("logical_date")
    if context["params"].get("as_of") or moment is None or run.run_type != "scheduled":
        return day_of(context)
    return str((moment - timedelta(hours=1)).date().isoformat())


def known_keys(conf: Mapping[str, Any], params: list[str]) -> None:
    """Airflow passes over a conf key that is no param; a misspelt one must not do nothing."""
    for key in conf:
        if key not in params and key != "openlineage":
            near = get_close_matches(key, params, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(params)}"
            raise AirflowFailException(f"unknown parameter {key!r}; {hint}")


def deployed_cluster() -> dict[str, Any]:
    """The `cluster` section of the checkout's params.yaml under $AUTOGLM__CLUSTER__BACKEND: what decides which operator a stage gets."""
    cluster = deployed("cluster")
    if backend := os.environ.get("AUTOGLM__CLUSTER__BACKEND"):
        cluster["backend"] = backend
    return cluster


def deployed(section: str) -> dict[str, Any]:
    """A section of the checkout's params.yaml as it is when a DAG file is parsed."""
    path = checkout() / "params.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = tree.get(section) if isinstance(tree, dict) else None
    return dict(found) if isinstance(found, dict) else {}


def pool() -> dict[str, Any]:
    """The Airflow pool of mapped tasks: the team's, where `cluster.slots` (or the team's own) says how many may run at once."""
    team, slots = team_slots()
    return {} if slots is None else {"pool": pool_name(team)}


def pool_name(team: str) -> str:
    return f"autoglm-{team}"


def team_slots() -> tuple[str, int | None]:
    """The deployment's team, and how many mapped tasks it may have at once over all its DAG runs; None is no bound."""
    cluster = deployed_cluster()
    team = str(cluster.get("team") or "default")
    own = (cluster.get("teams") or {}).get(team) or {}
    slots = own.get("slots", cluster.get("slots"))
    return team, None if slots is None else int(slots)


def release_settings(workspace: Path) -> dict[str, Any]:
    """The `release` section of the run's resolved params.yaml."""
    tree = yaml.safe_load((workspace / "params.yaml").read_text(encoding="utf-8"))
    section = tree.get("release") if isinstance(tree, dict) else None
    return section if isinstance(section, dict) else {}
