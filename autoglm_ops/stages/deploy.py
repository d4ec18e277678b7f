"""Effect `deploy`: the champion, fetched by digest, loaded and asked once, is announced to the servers."""

from __future__ import annotations

import time
from pathlib import Path

from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.errors import Refused
from autoglm_ops.stages import releasing
from autoglm_ops.stages.base import Context, Outcome


def run(context: Context) -> Outcome:
    """Writes `serving/champion.json`. Raises Tampered, Refused (the model does not answer), UsageError (no champion), TryAgain."""
    registry = releasing.open_registry(context.settings, context.home)
    model = registry.resolve(f"models:/{context.settings.release.name}@champion")
    folder = releasing.fetch(context.settings, context.home, model)
    try:
        seconds = smoke(folder, model)
    finally:
        releasing.discard(folder)
    releasing.announce(context.home, model)
    return Outcome(facts=model.model_dump(mode="json"), measured={"smoke_seconds": round(seconds, 3)})


def smoke(folder: Path, model: ModelRef) -> float:
    """Load the model as a server does and ask it one thing; seconds taken. Raises Tampered, or Refused for no sensible answer."""
    from autoglm_ops.training.inference import Classifier

    started = time.monotonic()
    classifier = Classifier.load(folder, model.digest)
    answer = classifier.predict(["smoke test"])[0]
    if len(answer) != len(classifier.labels) or not abs(float(answer.sum()) - 1) < 1e-3:
        raise Refused(
            f"{model.name} v{model.version} answered {answer.tolist()} for labels {list(classifier.labels)}: not deployed"
        )
    return time.monotonic() - started
