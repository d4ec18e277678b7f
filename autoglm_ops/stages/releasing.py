"""Settings to registry, ledger and store: what the effects, the snapshot and the command line share about releases."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm_ops.contracts.record import Completion, digest_of
from autoglm_ops.contracts.release import Champion, ModelRef
from autoglm_ops.release.ledger import Ledger
from autoglm_ops.settings import Settings
from autoglm_ops.stages import runner
from autoglm_ops.stages.base import Context
from autoglm_ops.store import open_store

if TYPE_CHECKING:
    from autoglm_ops.release.registry import Registry


def open_ledger(home: Path) -> Ledger:
    return Ledger(home / "ledger.jsonl")


def open_registry(settings: Settings, home: Path) -> Registry:
    """The registry of `release.name` at `tracking.uri`. Raises TryAgain when it is away. Imports MLflow."""
    from autoglm_ops.release.registry import Registry
    from autoglm_ops.tracking.mlflow import connect, default_uri

    uri = settings.tracking.uri
    return Registry(connect(uri, home), uri or default_uri(home), settings.release.name)


def reconciled_champion(settings: Settings, home: Path) -> Champion:
    """The champion of this moment; an alias moved by hand is put into the ledger and honoured."""
    from autoglm_ops.release import moves

    registry = open_registry(settings, home)
    moves.reconcile(registry, open_ledger(home), time.time())
    return registry.champion()


def effect_key(context: Context) -> str:
    """What makes an effect happen once: the run key. A checkout has none, so there it is what was trained and how it was judged."""
    if context.run != "local":
        return context.run
    outputs = {name: runner.require(name, context.root).outputs for name in ("train", "evaluate", "gate")}
    return f"local-{digest_of(outputs)[:16]}"


def registered(root: Path) -> tuple[Completion, ModelRef]:
    """What `register` recorded, and the version it made. Raises UsageError when it has not run."""
    done = runner.require("register", root)
    facts = done.facts
    return done, ModelRef(name=facts["name"], version=facts["version"], digest=facts["digest"])


def fetch(settings: Settings, home: Path, model: ModelRef) -> Path:
    """A checked copy of the model's folder, to be removed by `discard`. Raises Tampered, Refused (not there) or TryAgain."""
    place = home / "scratch"
    place.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="model-", dir=place))
    try:
        return open_store(settings.store.uri, home).get(model.digest, folder / "model")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def discard(fetched: Path) -> None:
    shutil.rmtree(fetched.parent, ignore_errors=True)


def announce(home: Path, model: ModelRef) -> None:
    """Write `serving/champion.json`, whole, for servers to pick up."""
    model.write(home / "serving" / "champion.json")
