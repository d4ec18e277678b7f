"""The loop's own steps, outside any run workspace: collect → signals → patch. Each is idempotent for its day.

What they say is kept under $AUTOGLM_HOME/feedback: current.json (labels), drift/<day>.json, signals/<day>.json, compiled/<day>.json,
patches.jsonl.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.feedback import Alert, FeedbackSnapshot, PatchSet, Signal
from autoglm_ops.contracts.production import DriftOfDay, SignalsOfDay
from autoglm_ops.contracts.release import EvaluationReport
from autoglm_ops.errors import SettingsError
from autoglm_ops.feedback import declines, levers, rules
from autoglm_ops.feedback.compiler import CompiledPatches, FeedbackPolicy, compile_patches
from autoglm_ops.feedback.history import History
from autoglm_ops.monitoring import alerts
from autoglm_ops.settings import PLACEMENT, Settings
from autoglm_ops.settings.layers import parse_yaml
from autoglm_ops.stages import production, serving, snapshot
from autoglm_ops.store import open_store
from autoglm_ops.training.models import BUILTIN, why_not_int8


def collect(settings: Settings, home: Path, day: date) -> FeedbackSnapshot:
    """Put every label that production returned for events up to `day` into the store, by digest, for the next run's snapshot."""
    place = home / "scratch"
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="feedback-", dir=place) as folder:
        taken = serving.requests(settings, home).export(Path(folder), day.isoformat())
        if taken.digest is not None:
            open_store(settings.store.uri, home).put(Path(folder))
    taken.write(home / "feedback" / "current.json")
    prune(settings, home, day)
    return taken


def prune(settings: Settings, home: Path, day: date, *, dry: bool = False) -> int:
    """Forget answers older than feedback.keep_days, counted back from `day`, that nobody said anything of. Returns how many."""
    before = (day - timedelta(days=settings.feedback.keep_days)).isoformat()
    return serving.requests(settings, home).prune(before, dry=dry)


def drift(settings: Settings, home: Path, day: date) -> DriftOfDay:
    """How far the day's requests are from the champion's training texts; kept for `signals`."""
    moved = production.drift_of(settings, home, day)
    moved.write(home / "feedback" / "drift" / f"{day.isoformat()}.json")
    return moved


def signals(settings: Settings, home: Path, day: date, origin: Path = Path()) -> SignalsOfDay:
    """Judge the champion on the window that ends with `day`, on a drift found anew. `origin`: what monitor.metrics is relative to.

    What fired starts no second study within feedback.cooldown_days of one that ended: labels that trickle in by the hour are no news.
    """
    found = _with_declines(production.signals_of(settings, home, day, drift(settings, home, day), origin), settings, home, day)
    done = _retuned(home, day, settings.feedback.cooldown_days) if found.fired else None
    if done is not None:
        found = found.model_copy(update={"fired": False, "reason": f"resting: {done}"})
    found.write(_signals_path(home, day))
    return found


def patch(settings: Settings, home: Path, day: date, origin: Path = Path(), *, dry: bool = False) -> CompiledPatches:
    """Turn the day's signals into patches and append them to the history; the same signals again add nothing.

    Raises SettingsError when the file of feedback.rules, relative to `origin`, holds no rules.
    """
    chosen = rules.RULES if settings.feedback.rules is None else _rules(settings.feedback.rules, origin)
    path = _signals_path(home, day)
    said = SignalsOfDay.read(path).signals if path.exists() else signals(settings, home, day, origin).signals
    past = history(home)
    made = decide(settings, said, past.active(day), day, chosen, origin)
    if not dry:
        past.append(made.patches)
        _keep(made, home, day)
    return made


def decide(
    settings: Settings,
    said: Sequence[Signal],
    active: PatchSet,
    day: date,
    chosen: Sequence[rules.Rule] = rules.RULES,
    origin: Path = Path(),
) -> CompiledPatches:
    """What the compiler answers to `said` on `day`, with the levers and limits of `settings` and `active` in force. Writes nothing."""
    tree = settings.model_dump(mode="json")
    own = _own(tree)
    space = _levers(tree, origin)
    heads = declines.heads_rule(own["hidden_size"], own["heads"]) if settings.feedback.declines and own else None
    policy = _policy(settings, own, levers.apply(space, active, day).levers, heads)
    return compile_patches(said, space, active, policy, day, (*chosen, *([heads] if heads else [])))


def compiled(home: Path, day: date) -> CompiledPatches:
    """What the compiler made of the day's signals, and every lever it left alone; nothing where it was never asked."""
    path = _compiled_path(home, day)
    return CompiledPatches.read(path) if path.exists() else CompiledPatches()


def _keep(made: CompiledPatches, home: Path, day: date) -> None:
    """The day's record: the round that patched stays, since asked again every lever answers that it was seen."""
    if made.patches or not compiled(home, day).patches:
        made.write(_compiled_path(home, day))


def monitor(settings: Settings, home: Path, day: date, origin: Path = Path()) -> tuple[SignalsOfDay, tuple[Alert, ...]]:
    """The day's drift and quality, and what a person should know of them."""
    found = signals(settings, home, day, origin)
    return found, (*alerts.from_drift(found.drift), *alerts.from_signals(found.signals))


def history(home: Path) -> History:
    return History(home / "feedback" / "patches.jsonl")


def apply_fixed(tree: dict[str, dict[str, object]], sources: dict[str, str], patches: PatchSet, origin: Path = Path()) -> None:
    """Lay patches of fixed settings (`train.epochs`, say) over a resolved tree. A key that this very run sets is left alone.

    Patches of `tune.space` are the tune stage's: it reads them from inputs/patches.json. Those of `serving` are the server's.
    """
    elsewhere = (levers.SPACE, *(f"{section}." for section in PLACEMENT))
    fixed = PatchSet(patches=tuple(item for item in patches.patches if not item.key.startswith(elsewhere)))
    before = _levers(tree, origin)
    applied = levers.apply(before, fixed)
    after = applied.levers
    for item in applied.standing:
        section, _, leaf = item.key.partition(".")
        if not sources.get(item.key, "").startswith("--set") and not levers.same(before.get(item.key), after.get(item.key)):
            tree[section][leaf] = after[item.key]
            sources[item.key] = f"patch of {item.created}"


def _policy(settings: Settings, own: Mapping[str, Any], now: levers.Levers, moves: rules.Rule | None) -> FeedbackPolicy:
    """What a patch may do. Width and heads are moved apart from one another, and go together wherever both end up."""
    limits = {name: getattr(settings.feedback, name) for name in ("max_step", "cooldown_days", "expire_days")}
    if "heads" not in own:
        return FeedbackPolicy(**limits)
    heads, grain = own["heads"], "model.hidden_size"
    if moves is None:
        return FeedbackPolicy(**limits, grains={grain: 4 * heads})
    widths = [size for key in (grain, f"{levers.SPACE}{grain}") for size in levers.ends(now.get(key)).values()]
    notches = {declines.KEY: declines.heads_for(widths, heads)}
    return FeedbackPolicy(**limits, grains={grain: 4 * max(heads, int(moves.target(heads)))}, notches=notches)


def _with_declines(found: SignalsOfDay, settings: Settings, home: Path, day: date) -> SignalsOfDay:
    """`found` with what the runs' own evaluations say, where the settings ask. Runs before the last change of the heads do not count."""
    if not settings.feedback.declines:
        return found
    changed = [patch.created for patch in history(home).active(day).patches if patch.key.endswith(declines.KEY)]
    since = max(changed, default="")
    judged = [one for one in _judged(home) if since < one.day <= day.isoformat()]
    signal = declines.decline_signal(judged, settings.feedback.declines)
    return found.model_copy(
        update={
            "signals": (*found.signals, signal),
            "fired": found.fired or signal.fired,
            "reason": "" if signal.fired else found.reason,
        }
    )


def _judged(home: Path) -> Iterator[declines.Judged]:
    """What every closed run's evaluation said, the earliest run first."""
    from autoglm_ops.stages import runs

    for info in reversed(list(runs.listed(home))):
        path = Path(info.workspace) / "out" / "evaluate" / "evaluation.json"
        if runs.closed(Path(info.workspace)) and path.exists():
            told = EvaluationReport.read(path)
            yield declines.Judged(
                day=info.as_of, run=info.run, metric=told.metric, value=told.candidate.estimate, rows=told.rows
            )


def _retuned(home: Path, day: date, cooldown_days: int) -> str | None:
    """Which study of this day, or of the cool-down before it, came to its end."""
    from autoglm_ops.stages import runs

    first = (day - timedelta(days=cooldown_days - 1)).isoformat()
    for info in runs.listed(home):
        if info.dag == runs.RETUNE and first <= info.as_of <= day.isoformat() and runs.closed(Path(info.workspace)):
            return (
                f"run {info.run} was tuned on what came until {info.as_of}; the next study may start {cooldown_days} days later"
            )
    return None


def _rules(named: str, origin: Path) -> tuple[rules.Rule, ...]:
    where = f"feedback.rules = {named}"
    try:
        return rules.parse(parse_yaml((origin / named).read_text(encoding="utf-8"), where), where)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where} cannot be read: {error}; name a YAML file, relative to the checkout") from error


def _levers(tree: Mapping[str, Any], origin: Path) -> dict[str, Any]:
    """The levers of a run: without int8 where its model, a folder below `origin`, cannot be had so."""
    found, key = levers.levers(tree, _own(tree)), "train.quantization"
    return found if why_not_int8(tree["model"]["name"], origin) is None else {k: v for k, v in found.items() if k != key}


def _own(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What a built-in configuration has where the settings say null; nothing for a model folder."""
    name = tree["model"]["name"]
    shape = dict(BUILTIN.get(name)()) if name in BUILTIN.names() else {}
    return {**shape, **{key: value for key, value in tree["model"].items() if value is not None and key in shape}}


def _compiled_path(home: Path, day: date) -> Path:
    return home / "feedback" / "compiled" / f"{day.isoformat()}.json"


def _signals_path(home: Path, day: date) -> Path:
    return snapshot.signals_path(home, day)
