"""Settings to a running server: which model, from where, behind which key, remembered in which file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import Classifier, ModelSource
from autoglm_ops.errors import TryAgain, UsageError
from autoglm_ops.feedback import levers
from autoglm_ops.feedback.history import History
from autoglm_ops.feedback.intake import Intake
from autoglm_ops.settings import Settings
from autoglm_ops.stages import releasing

if TYPE_CHECKING:
    from autoglm_ops.release.registry import Registry
    from autoglm_ops.serving.app import Parts
    from autoglm_ops.serving.arms import Challenge

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What the command line asked for. None takes the setting, or the key made on first start."""

    model: str
    host: str | None = None
    port: int | None = None
    key_file: Path | None = None
    challenger: str | None = None
    share: float = 0.1


class RegistrySource:
    """`models:/NAME@ALIAS` or `models:/NAME/VERSION`: asked of MLflow each time, so an alias moved by hand is honoured."""

    def __init__(self, uri: str, settings: Settings, home: Path) -> None:
        self._uri = uri
        self._settings = settings
        self._home = home
        self._registry: Registry | None = None
        self._answered = False

    def current(self) -> ModelRef:
        """What the registry says. Until it has answered once, the champion that `deploy` announced stands in when it is away."""
        try:
            self._registry = self._registry or releasing.open_registry(self._settings, self._home)
            ref = self._registry.resolve(self._uri)
        except TryAgain as error:
            announced = self._home / "serving" / "champion.json"
            if self._answered or self._uri != champion_uri(self._settings) or not announced.exists():
                raise
            log.warning("%s; serving the champion that was deployed last, until the registry answers", error)
            return ModelRef.read(announced)
        self._answered = True
        return ref

    def load(self, ref: ModelRef) -> Classifier:
        """From the artefact store, by digest."""
        folder = releasing.fetch(self._settings, self._home, ref)
        try:
            return _classifier(folder, ref.digest)
        finally:
            releasing.discard(folder)


class FolderSource:
    """A model folder, as it was when the server started: version 0 of its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ref = ModelRef(name=folder.resolve().name, version=0, digest=digest_path(folder))

    def current(self) -> ModelRef:
        return self._ref

    def load(self, ref: ModelRef) -> Classifier:
        return _classifier(self._folder, ref.digest)


def serve(request: Request, settings: Settings, home: Path, announce: Callable[[str], None]) -> None:
    """Serve until told to stop. `announce` is called with the URL once requests are answered.

    Raises UsageError (a port in use, a bad key file, no such model), Tampered, Refused or TryAgain before anything is served.
    """
    # One thread a model call: requests are small, and with two threads on busy cores a call takes many times longer (facts).
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from autoglm_ops.serving import app, server

    placed = settings.serving
    listener = server.bind(
        placed.host if request.host is None else request.host, placed.port if request.port is None else request.port
    )
    with listener:
        parts = compose(source_of(request.model, settings, home), settings, home, request.key_file)
        if request.challenger is not None:
            parts = replace(parts, challenge=_challenge(request, settings, home))
        parts.host.start()
        server.serve(app.build(parts), listener, lambda: announce(server.address(listener)))


def _challenge(request: Request, settings: Settings, home: Path) -> Challenge:
    """The second model, loaded and watched."""
    from autoglm_ops.serving.arms import Challenge
    from autoglm_ops.serving.host import ModelHost
    from autoglm_ops.serving.metrics import Metrics

    assert request.challenger is not None
    host = ModelHost(source_of(request.challenger, settings, home), Metrics(), settings.serving.refresh_seconds)
    host.start()
    return Challenge(host, request.share)


def compose(source: ModelSource, settings: Settings, home: Path, key_file: Path | None = None) -> Parts:
    """The parts of a server, none of them started."""
    from autoglm_ops.serving import keys
    from autoglm_ops.serving.app import Parts
    from autoglm_ops.serving.batcher import Policy
    from autoglm_ops.serving.host import ModelHost
    from autoglm_ops.serving.limits import Bounds
    from autoglm_ops.serving.metrics import Metrics

    placed, metrics = settings.serving, Metrics()
    return Parts(
        host=ModelHost(source, metrics, placed.refresh_seconds),
        memory=requests(settings, home),
        metrics=metrics,
        keys=keys.load_or_make(key_path(home)) if key_file is None else keys.load(key_file),
        policy=Policy(placed.max_batch, _batch_wait_ms(settings, home) / 1000, placed.queue),
        bounds=Bounds(requests=placed.queue, seconds=placed.deadline_seconds),
    )


def _batch_wait_ms(settings: Settings, home: Path) -> float:
    """The setting, as the loop's patches in force today changed it: read when a server starts."""
    key, today = "serving.batch_wait_ms", datetime.now(UTC).date()
    active = History(home / "feedback" / "patches.jsonl").active(today)
    mine = PatchSet(patches=tuple(patch for patch in active.patches if patch.key == key))
    wait = float(levers.apply({key: settings.serving.batch_wait_ms}, mine, today).levers[key])
    if wait != settings.serving.batch_wait_ms:
        log.warning("%s is %g instead of %g: the loop patched it", key, wait, settings.serving.batch_wait_ms)
    return wait


def source_of(model: str, settings: Settings, home: Path) -> ModelSource:
    """Where `--model` points: a registry name, or a model folder. Raises UsageError when it is neither."""
    if model.startswith("models:/"):
        return RegistrySource(model, settings, home)
    folder = Path(model)
    if not folder.is_dir():
        raise UsageError(
            f"--model {model!r} is neither models:/NAME@ALIAS nor a model folder; {champion_uri(settings)} is the champion"
        )
    return FolderSource(folder)


def champion_uri(settings: Settings) -> str:
    return f"models:/{settings.release.name}@champion"


def requests_path(home: Path) -> Path:
    """What was answered, and what came back of it."""
    return home / "serving" / "requests.db"


def requests(settings: Settings, home: Path) -> Intake:
    """The requests database, with the settings' limits."""
    return Intake(requests_path(home), settings.feedback.max_per_source, settings.feedback.keep_days)


def key_path(home: Path) -> Path:
    return home / "serving" / "api-key"


def _classifier(folder: Path, digest: str) -> Classifier:
    from autoglm_ops.training.inference import Classifier as Trained

    return Trained.load(folder, digest)
