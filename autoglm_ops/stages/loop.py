"""The loop's own steps, outside any run workspace: collect → signals → patch. Each is idempotent for its day.

What they say is kept under $AUTOGLM_HOME/feedback: current.json (labels), signals/<day>.json, patches.jsonl.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from autoglm_ops.contracts.feedback import Alert, FeedbackSnapshot, PatchSet, Profile
from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.release import Champion, Interval
from autoglm_ops.contracts.serving import LabelledRow
from autoglm_ops.feedback import levers
from autoglm_ops.feedback.compiler import CompiledPatches, FeedbackPolicy, compile_patches
from autoglm_ops.feedback.history import History
from autoglm_ops.feedback.intake import Intake
from autoglm_ops.feedback.signals import Measure, SignalPolicy, derive
from autoglm_ops.monitoring import alerts
from autoglm_ops.monitoring.drift import drift, profile
from autoglm_ops.settings import Settings
from autoglm_ops.stages import releasing, snapshot
from autoglm_ops.store import open_store


def collect(settings: Settings, home: Path, day: date) -> FeedbackSnapshot:
    """Put every label that production returned for events up to `day` into the store, by digest, for the next run's snapshot."""
    place = home / "scratch"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="feedback-", dir=place) as folder:
        taken = _intake(settings, home).export(Path(folder), day.isoformat())
        if taken.digest is not None:
            open_store(settings.store.uri, home).put(Path(folder))
    taken.write(home / "feedback" / "current.json")
    return taken


def signals(settings: Settings, home: Path, day: date) -> SignalsOfDay:
    """Judge the champion on the window that ends with `day`. Without a champion or labels nothing fires, and it says so."""
    champion = snapshot.champion(settings, home)
    since = (day - timedelta(days=settings.monitor.window_days - 1)).isoformat()
    rows = _intake(settings, home).labelled(since, day.isoformat())
    if champion.model is None or not rows:
        why = "there is no champion yet" if champion.model is None else f"no labels came back for {since} to {day}"
        found = SignalsOfDay(day=day.isoformat(), champion=champion, fired=False, reason=why)
    else:
        found = _judge(settings, home, day, champion, rows)
    found.write(_signals_path(home, day))
    return found


def patch(settings: Settings, home: Path, day: date, *, dry: bool = False) -> CompiledPatches:
    """Turn the day's signals into patches and append them to the history; the same signals again add nothing."""
    path = _signals_path(home, day)
    said = SignalsOfDay.read(path).signals if path.exists() else signals(settings, home, day).signals
    past = history(home)
    feedback = settings.feedback
    policy = FeedbackPolicy(max_step=feedback.max_step, cooldown_days=feedback.cooldown_days, expire_days=feedback.expire_days)
    space = levers.levers(settings.model_dump(mode="json"))
    compiled = compile_patches(said, space, past.active(day), policy, day)
    if not dry:
        past.append(compiled.patches)
    return compiled


def monitor(settings: Settings, home: Path, day: date) -> tuple[SignalsOfDay, tuple[Alert, ...]]:
    """The day's drift and quality, and what a person should know of them."""
    found = signals(settings, home, day)
    return found, (*alerts.from_drift(found.drift), *alerts.from_signals(found.signals))


def history(home: Path) -> History:
    return History(home / "feedback" / "patches.jsonl")


def apply_fixed(tree: dict[str, dict[str, object]], sources: dict[str, str], patches: PatchSet) -> None:
    """Lay patches of fixed settings (`train.epochs`, say) over a resolved tree. A key that this very run sets is left alone.

    Patches of `tune.space` are the tune stage's: it reads them from inputs/patches.json.
    """
    fixed = PatchSet(patches=tuple(item for item in patches.patches if not item.key.startswith(levers.SPACE)))
    before = levers.levers(tree)
    after = levers.apply(before, fixed).levers
    for item in fixed.patches:
        section, _, leaf = item.key.partition(".")
        if not sources.get(item.key, "").startswith("--set") and not levers.same(before.get(item.key), after.get(item.key)):
            tree[section][leaf] = after[item.key]
            sources[item.key] = f"patch of {item.created}"


def _judge(settings: Settings, home: Path, day: date, champion: Champion, rows: Sequence[LabelledRow]) -> SignalsOfDay:
    limits = settings.monitor
    assert champion.model is not None
    fetched = releasing.fetch(settings, home, champion.model)
    try:
        reference = Profile.read(fetched / "reference.json")
    finally:
        releasing.discard(fetched)
    current = profile([row.text for row in rows], [row.label for row in rows])
    reports = drift(reference, current, limits.psi, limits.kl, limits.min_rows)
    policy = SignalPolicy(min_rows=limits.min_rows, quality_drop=limits.quality_drop)
    promised = champion.metric
    found = derive(rows, reports, version=champion.model.version, promised=promised, measure=_measure(settings), policy=policy)
    fired = any(signal.fired for signal in found)
    return SignalsOfDay(day=day.isoformat(), champion=champion, fired=fired, signals=found, drift=reports)


def _measure(settings: Settings) -> Measure:
    from autoglm_ops.evaluation.metrics import encode, label_names
    from autoglm_ops.evaluation.paired import interval

    def measure(truth: Sequence[str], answers: Sequence[str]) -> Interval:
        names = label_names(truth, answers)
        codes = encode(truth, names), encode(answers, names)
        chosen = settings.evaluate
        return interval(chosen.metric, *codes, labels=len(names), resamples=chosen.resamples, seed=settings.seed)

    return measure


def _intake(settings: Settings, home: Path) -> Intake:
    return Intake(home / "serving" / "requests.db", settings.feedback.max_per_source)


def _signals_path(home: Path, day: date) -> Path:
    return snapshot.signals_path(home, day)
