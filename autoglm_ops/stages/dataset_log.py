"""A source log wired to the settings: what `flow.log` names is followed into a folder that `flow.location` can name."""

from __future__ import annotations

from pathlib import Path
from threading import Event as Flag

from autoglm_ops.data.follow import Bounds, Commits, LiveRoutes, Tally, follow, open_log
from autoglm_ops.data.follow.pull import Watch
from autoglm_ops.errors import UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.settings.layers import parse_yaml


def source(settings: Settings, given: str | None, origin: Path) -> str:
    """The log's place: the command line's, else flow.log.source; a path counts from the checkout. Raises UsageError."""
    where = given or settings.flow.log.source
    if where is None:
        raise UsageError("name the log: autoglm data follow FOLDER, or flow.log.source in params.yaml")
    return where if "://" in where else str(origin / Path(where).expanduser())


def output(settings: Settings, home: Path, origin: Path) -> Path:
    """The folder of the commits: flow.log.out, else `home/followed`."""
    out = settings.flow.log.out
    return origin / Path(out).expanduser() if out else home / "followed"


def pull(
    settings: Settings, where: str, out: Path, origin: Path, *, once: bool, stop: Flag, watch: Watch
) -> tuple[Tally, LiveRoutes]:
    """Follow the log at `where` into `out` until `stop`, or `once` to its end. What it took, and its handlers.

    Raises SettingsError for handlers that cannot be used, TryAgain when another follower is at work or something is away, and what
    the log refuses.
    """
    asked = settings.flow.log
    if asked.handlers is None:
        raise UsageError("flow.log.handlers names no file; write [{on: review.written, handler: document}] to one, and name it")
    routes = LiveRoutes(origin / asked.handlers, lambda text: parse_yaml(text, str(asked.handlers)))
    log = open_log(where)
    bounds = Bounds(asked.batch_events, asked.batch_seconds, once)
    with Commits(out, log.name) as commits:
        return follow(log, commits, routes, settings.data.columns.model_dump(), bounds, stop, watch), routes
