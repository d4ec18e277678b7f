"""Production, judged: how far its texts moved, and what its labels, requests and costs say of the champion. Composition, no decisions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoglm_ops.contracts.feedback import DriftReport, EmbeddingSample, Profile, Signal
from autoglm_ops.contracts.production import DriftOfDay, SignalsOfDay
from autoglm_ops.contracts.record import digest_of
from autoglm_ops.contracts.release import Champion, Interval, ModelRef
from autoglm_ops.contracts.serving import LabelledRow, Served
from autoglm_ops.errors import BadData
from autoglm_ops.feedback import operations
from autoglm_ops.feedback.signals import Measure, SignalPolicy, derive, variance_signal
from autoglm_ops.monitoring import embedding
from autoglm_ops.monitoring.drift import binned_ks, drift, profile
from autoglm_ops.settings import Settings
from autoglm_ops.stages import releasing, serving, snapshot

if TYPE_CHECKING:
    from autoglm_ops.training.inference import Classifier

ALPHA = 0.001
"""Of the false alarms of KS and of the embedding shift, each."""
KEPT = 50
"""Reports of embedding shift that are kept to be asked again."""


def drift_of(settings: Settings, home: Path, day: date) -> DriftOfDay:
    """Compare every request of the window, labelled or not, with the champion's training texts; what came back of labels, too."""
    champion = snapshot.champion(settings, home)
    if champion.model is None:
        return DriftOfDay(day=day.isoformat(), champion=champion, reason="there is no champion yet")
    since, until = window(settings, day)
    requests = serving.requests(settings, home)
    asked = requests.predictions(since, until)
    rows = _believed(settings, home, since, until)
    texts = [one.text for one in asked]
    fetched = releasing.fetch(settings, home, champion.model)
    try:
        reports = _compare(settings, Profile.read(fetched / "reference.json"), texts, rows)
        reports += _embedded(settings, home, fetched, champion.model, texts) if reports else ()
    finally:
        releasing.discard(fetched)
    few = "" if reports else f"{len(asked)} requests, {settings.monitor.min_rows} are needed"
    return DriftOfDay(day=until, champion=champion, asked=len(asked), labelled=len(rows), drift=reports, reason=few)


def signals_of(settings: Settings, home: Path, day: date, moved: DriftOfDay, origin: Path) -> SignalsOfDay:
    """Judge the champion on the window that ends with `day`; `moved` is its drift. Without a champion or requests nothing fires."""
    champion, (since, until) = moved.champion, window(settings, day)
    rows, served = _believed(settings, home, since, until), _served(settings, home, origin, champion, day)
    if champion.model is None or not (moved.asked or served):
        why = moved.reason if champion.model is None else f"no labels came back for {since} to {until}, and nothing was asked"
        return SignalsOfDay(day=until, champion=champion, fired=False, reason=why)
    version, limits = champion.model.version, settings.monitor
    policy = SignalPolicy(
        min_rows=limits.min_rows, quality_drop=limits.quality_drop, min_reporters=settings.feedback.min_reporters
    )
    found = derive(rows, moved.drift, version=version, promised=champion.metric, measure=measure_of(settings), policy=policy)
    chosen = {name: getattr(limits, name) for name in operations.OperationsPolicy.model_fields}
    found += operations.derive(served, version, operations.OperationsPolicy(**chosen))
    found += _variance(settings, home, day, version)
    return SignalsOfDay(
        day=until, champion=champion, fired=any(signal.fired for signal in found), signals=found, drift=moved.drift
    )


def window(settings: Settings, day: date) -> tuple[str, str]:
    """First and last day of the window that ends with `day`."""
    return (day - timedelta(days=settings.monitor.window_days - 1)).isoformat(), day.isoformat()


def measure_of(settings: Settings) -> Measure:
    """The settings' metric, with its interval, of truth and answers."""
    from autoglm_ops.evaluation.metrics import encode, label_names
    from autoglm_ops.evaluation.paired import interval

    def measure(truth: Sequence[str], answers: Sequence[str]) -> Interval:
        names = label_names(truth, answers)
        codes = encode(truth, names), encode(answers, names)
        chosen = settings.evaluate
        return interval(chosen.metric, *codes, labels=len(names), resamples=chosen.resamples, seed=settings.seed)

    return measure


def _believed(settings: Settings, home: Path, since: str, until: str) -> list[LabelledRow]:
    """The window's labels, without those of reporters that stand against the others."""
    requests = serving.requests(settings, home)
    return requests.labelled(since, until, without=requests.distrusted(since, until))


def _variance(settings: Settings, home: Path, day: date, version: int) -> tuple[Signal, ...]:
    """Of the champion's own answers only: another version's quality is another's variance."""
    since = (day - timedelta(days=settings.monitor.variance_days - 1)).isoformat()
    rows = [row for row in _believed(settings, home, since, day.isoformat()) if row.version == version]
    return (variance_signal(rows, settings.monitor.min_rows),) if rows else ()


def _served(settings: Settings, home: Path, origin: Path, champion: Champion, day: date) -> Sequence[Served]:
    """From the requests database, or from the Prometheus text that monitor.metrics names."""
    named = settings.monitor.metrics
    if named is None:
        return serving.requests(settings, home).served(*window(settings, day))
    from autoglm_ops.serving.metrics import read_served

    try:
        text = (origin / named).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"monitor.metrics = {named!r} cannot be read: {error}; name a file of Prometheus text") from error
    return read_served(text, day.isoformat(), champion.model.version if champion.model else 0)


def _compare(
    settings: Settings, reference: Profile, texts: Sequence[str], rows: Sequence[LabelledRow]
) -> tuple[DriftReport, ...]:
    """Lengths and characters of all requests; labels of those that have one, when they are enough."""
    limits = settings.monitor
    current = profile(texts)
    reports = drift(reference, current, limits.psi, limits.kl, limits.min_rows)
    if not reports:
        return ()
    named = profile([row.text for row in rows], [row.label for row in rows]) if rows else current
    labels = [one for one in drift(reference, named, limits.psi, limits.kl, limits.min_rows) if one.feature == "labels"]
    return (*reports, binned_ks(reference, current, limits.ks, ALPHA), *labels)


def _embedded(settings: Settings, home: Path, folder: Path, model: ModelRef, texts: Sequence[str]) -> tuple[DriftReport, ...]:
    """The embedding shift of a bounded sample of `texts`, in the order of requests; nothing where the model brought no sample, or
    monitor.embedding is 0. Kept by what it is a function of: the night's next step asks the same again."""
    least = settings.monitor.embedding
    if not least or not (folder / "embeddings.json").exists():
        return ()
    places = np.linspace(0, len(texts) - 1, min(len(texts), embedding.ROWS)).round().astype(np.int64)
    sample = [texts[place] for place in places]
    key = digest_of({"model": model.digest, "texts": sample, "asked": len(texts), "least": least})
    path = home / "scratch" / "embeddings" / f"{key[:32]}.json"
    if not path.exists():
        known = np.asarray(EmbeddingSample.read(folder / "embeddings.json").vectors, np.float32)
        if not len(known):
            return ()
        vectors = embedding.bounded(_classifier(folder, model).embed(sample))
        found = embedding.shift(known, vectors, least, ALPHA, len(texts))
        _forget(path.parent)
        found.write(path)
        return (found,)
    return (DriftReport.read(path),)


def _forget(folder: Path) -> None:
    """Leave the newest KEPT reports."""
    for old in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[: -KEPT + 1]:
        old.unlink(missing_ok=True)


def _classifier(folder: Path, model: ModelRef) -> Classifier:
    from autoglm_ops.training.inference import Classifier

    return Classifier.load(folder, model.digest)
