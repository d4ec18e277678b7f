"""Earlier studies: kept under $AUTOGLM_HOME/studies when a run's study is done, shown to the next run as `inputs/history.json`."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from autoglm_ops.contracts.training import PastStudy, StudyHistory
from autoglm_ops.errors import Tampered
from autoglm_ops.logs import without_password
from autoglm_ops.settings import Settings

log = logging.getLogger(__name__)

KEPT = 20
"""Studies shown, the newest."""
SCORED = 2
"""Looks a study must have, or it says nothing."""


def history(settings: Settings, home: Path) -> StudyHistory:
    """The newest studies, oldest first. Nothing when no strategy of the settings would hear them, so that other runs keep their key."""
    if not settings.tune.history or settings.tune.strategy != "tunemaster":
        return StudyHistory()
    found = []
    for path in sorted((home / "studies").glob("*.json"))[-KEPT:]:
        try:
            found.append(PastStudy.read(path))
        except Tampered as error:
            log.warning("an earlier study is left out: %s", error)
    return StudyHistory(studies=tuple(found))


def keep_database(home: Path, scratch: Path) -> None:
    """Keep a study's SQLite file, for optuna-dashboard; the same study again replaces it. On a server it stays where it is."""
    from autoglm_ops.tuning.database import FILE

    if (scratch / FILE).exists():
        target = home / "studies" / f"{scratch.name}.db"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / FILE, target)
        for old in sorted(target.parent.glob("*.db"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink()


def storages(settings: Settings, home: Path) -> tuple[str, ...]:
    """Where studies can be opened, as optuna-dashboard takes it: the server's URL without its password, else a file each, the newest first."""
    if settings.tracking.studies is not None:
        return (without_password(settings.tracking.studies),)
    files = sorted((home / "studies").glob("*.db"), key=lambda path: path.stat().st_mtime, reverse=True)
    running = sorted((home / "scratch").glob("tune-*/study.db"))
    return tuple(f"sqlite:///{path}" for path in (*running, *files))


def keep(home: Path, study: PastStudy) -> None:
    """Keep a study for later ones, once: the same study again changes nothing."""
    folder = home / "studies"
    name = study.fingerprint()[:12]
    if sum(len(trial.curve) for trial in study.trials) < SCORED or list(folder.glob(f"*-{name}.json")):
        return
    number = max((int(path.name.split("-", 1)[0]) for path in folder.glob("[0-9]*-*.json")), default=0) + 1
    study.write(folder / f"{number:06d}-{name}.json")
