"""The DAG files and Airflow's database: made and brought up to date only when they are not."""

from __future__ import annotations

import logging
from typing import Any

from airflow import settings
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.jobs.job import most_recent_job
from airflow.models.pool import Pool
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk import DAG
from airflow.utils.db import _REVISION_HEADS_MAP, initdb
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

from autoglm_airflow import requests
from autoglm_ops.errors import UsageError

log = logging.getLogger(__name__)


def migrate() -> None:
    """Create or upgrade the database when its revision is not this Airflow's newest. Looking costs a millisecond, not seconds.

    SQLite keeps a write-ahead log from then on: without one a commit waits for every open reader, and Airflow's API server, whose
    one event loop has to run both, stood still until SQLite's patience ended.
    """
    engine = settings.engine
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(text("PRAGMA journal_mode=WAL"))
        known = inspect(connection).has_table("alembic_version")
        revision = connection.execute(text("select version_num from alembic_version")).scalar() if known else None
    if revision != list(_REVISION_HEADS_MAP.values())[-1]:
        initdb()
    keep_pool()


def keep_pool() -> None:
    """The team's pool with as many slots as the deployment says. A task of a pool that is not there would wait for ever."""
    team, slots = requests.team_slots()
    if slots is None:
        return
    name, about = requests.pool_name(team), "mapped trials and shards of the team, as cluster.slots says"
    Pool.create_or_update_pool(name, slots=slots, description=about, include_deferred=True)


def load() -> dict[str, DAG]:
    """Every DAG of the bundles, and the database told of them. Raises UsageError when a file does not parse."""
    manager = DagBundlesManager()
    with settings.Session() as session:
        manager.sync_bundles_to_db(session=session)
        session.commit()
    dags: dict[str, DAG] = {}
    for found in manager.get_all_dag_bundles():
        found.initialize()
        bag = BundleDagBag(dag_folder=found.path, bundle_path=found.path, bundle_name=found.name)
        for path, error in bag.import_errors.items():
            raise UsageError(f"{path} does not parse: {error}")
        sync_bag_to_db(bag, found.name, found.version)
        dags.update(bag.dags)
    return dags


def serialized(dag_id: str, session: Session) -> Any:
    """The DAG as the scheduler knows it."""
    dag = SerializedDagModel.get_dag(dag_id, session=session)
    if dag is None:
        raise UsageError(f"{dag_id} is not in Airflow's database")
    return dag


def scheduler_is_alive() -> bool:
    """Whether a scheduler has beaten its heart on this database lately."""
    job = most_recent_job("SchedulerJob")
    return bool(job and job.is_alive())
