"""Plots as PNG bytes, the same bytes for the same numbers. Owner of matplotlib.

Backgrounds are transparent and ink is mid-grey, so a plot reads on a light and on a dark page. Only matplotlib's own font is
used: another would make the bytes depend on the machine. It has no Han characters, so such labels appear as "#<number>", the
number the report's confusion table gives them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from autoglm_ops.contracts.release import SliceResult
from autoglm_ops.contracts.training import TrainingRecord, Trial, TuningReport

CANDIDATE, CHAMPION, FAINT, INK, FAULT = "#3b82f6", "#f59e0b", "#94a3b8", "#7c8798", "#dc2626"
BINS = 10


def confusion(counts: Mapping[str, Mapping[str, int]]) -> bytes:
    """The share of each true label's rows by predicted label, with the counts written in."""
    names = list(counts)
    rows = [[counts[truth][answer] for answer in names] for truth in names]
    shares = [[value / max(sum(row), 1) for value in row] for row in rows]
    figure, axes = _figure(3.4, 3.2)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, alpha=0.9)
    if len(names) <= 10:
        for y, row in enumerate(rows):
            for x, value in enumerate(row):
                axes.text(x, y, str(value), ha="center", va="center", color="white" if shares[y][x] > 0.55 else "#334155")
    ticks = [tick(name, number) for number, name in enumerate(names)]
    axes.set_xticks(range(len(names)), ticks, rotation=0 if len(names) <= 6 else 90)
    axes.set_yticks(range(len(names)), ticks)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    return _png(figure)


def days(slices: Sequence[SliceResult], metric: str) -> bytes:
    """Candidate and champion on each day of the gate."""
    parts = [part for part in slices if part.name.startswith("day=")]
    figure, axes = _figure(4.6, 3.2)
    at = range(len(parts))
    rivals = any(part.champion is not None for part in parts)
    width = 0.36 if rivals else 0.5
    axes.bar(
        [x - width / 2 * rivals for x in at], [part.candidate for part in parts], width, color=CANDIDATE, label="candidate"
    )
    if rivals:
        axes.bar([x + width / 2 for x in at], [part.champion or 0.0 for part in parts], width, color=CHAMPION, label="champion")
    axes.set_xticks(list(at), [f"{part.name.removeprefix('day=')}\n{part.rows} rows" for part in parts])
    axes.set_ylim(0, 1)
    axes.set_ylabel(metric)
    _legend(axes)
    return _png(figure)


def reliability(scores: Sequence[float], right: Sequence[bool]) -> bytes:
    """How often the candidate was right (line) and how many rows there were (bars), by its own score [0, 1]."""
    bins = [min(int(score * BINS), BINS - 1) for score in scores]
    counts = [bins.count(number) for number in range(BINS)]
    hits = [sum(hit for hit, place in zip(right, bins, strict=True) if place == number) for number in range(BINS)]
    centres = [(number + 0.5) / BINS for number in range(BINS)]
    figure, axes = _figure(4.6, 3.2)
    axes.bar(
        centres, [count / max(len(bins), 1) for count in counts], 0.9 / BINS, color=FAINT, alpha=0.5, label="share of rows"
    )
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    filled = [number for number in range(BINS) if counts[number]]
    axes.plot(
        [centres[n] for n in filled], [hits[n] / counts[n] for n in filled], marker="o", color=CANDIDATE, label="share right"
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("score of the answer")
    _legend(axes)
    return _png(figure)


def training(record: TrainingRecord) -> bytes:
    """Training loss by step, and the validation metric beside it with the kept step, or the averaged ones, marked."""
    figure, axes = _figure(4.6, 3.2)
    axes.plot(*_columns(record.losses), color=FAINT, label="training loss")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    shown = [axes]
    if record.validation:
        right = axes.twinx()
        right.plot(*_columns(record.validation), color=CANDIDATE, marker="o", markersize=4, label="validation (right)")
        if record.averaged_from:
            right.axvspan(record.averaged_from, record.best_step, color=CHAMPION, alpha=0.15, linewidth=0, label="averaged")
        else:
            right.axvline(record.best_step, color=CHAMPION, linewidth=1, linestyle="--", label="kept")
        right.tick_params(colors=INK, labelsize=8, length=0)
        right.spines[["top", "right", "left", "bottom"]].set_visible(False)
        shown.append(right)
    _legend(*shown)
    return _png(figure)


def trials(report: TuningReport) -> bytes:
    """The value of each trial in order, and the best so far."""
    figure, axes = _figure(4.6, 3.2)
    for state, colour, marker in (("complete", CANDIDATE, "o"), ("pruned", FAINT, "x")):
        chosen = [trial for trial in report.trials if trial.state == state and trial.value is not None]
        if chosen:
            axes.scatter(
                [trial.number for trial in chosen], [trial.value for trial in chosen], color=colour, marker=marker, label=state
            )
    better = max if report.direction == "maximize" else min
    best: list[tuple[int, float]] = []
    for trial in report.trials:
        if trial.state == "complete" and trial.value is not None:
            best.append((trial.number, trial.value if not best else better(best[-1][1], trial.value)))
    if best:
        axes.step(*_columns(best), where="post", color=CHAMPION, linewidth=1.2, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(report.objective)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(axes)
    return _png(figure)


def study(report: TuningReport, importance: Mapping[str, float]) -> dict[str, bytes]:
    """Of a study of some trials: importance, parallel coordinates, and the front where there are several objectives."""
    done = [trial for trial in report.trials if trial.state == "complete" and trial.value is not None]
    drawn = {"importance": _importance(importance)} if importance else {}
    if len(done) > 1:
        drawn["parallel"] = _parallel(report, done)
    if report.front:
        drawn["front"] = _front(report, done)
    return drawn


def _importance(shares: Mapping[str, float]) -> bytes:
    figure, axes = _figure(4.6, 3.2)
    names = [tick_of(key) for key in shares][::-1]
    axes.barh(names, list(shares.values())[::-1], color=CANDIDATE, height=0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of the variance")
    return _png(figure)


def _parallel(report: TuningReport, done: Sequence[Trial]) -> bytes:
    """A line per trial through its settings, each scaled to the values that were tried, to its value; the best one marked."""
    keys = sorted({key for trial in done for key in trial.params})
    axes_of = [[trial.params.get(key) for trial in done] for key in keys] + [[trial.value for trial in done]]
    scaled = [_scaled(values) for values in axes_of]
    figure, axes = _figure(4.6, 3.2)
    for place, trial in enumerate(done):
        best = trial.params == report.best and trial.value == report.best_value
        line = [column[place] for column in scaled]
        axes.plot(line, color=CHAMPION if best else FAINT, linewidth=1.8 if best else 0.9, zorder=3 if best else 2)
    axes.set_xticks(range(len(scaled)), [*(tick_of(key) for key in keys), "value"], rotation=20, ha="right")
    axes.set_yticks([0, 1], ["least", "most"])
    return _png(figure)


def _scaled(values: Sequence[Any]) -> list[float]:
    """Numbers to [0, 1]; words to their places in the alphabet; what a condition left out lies in the middle."""
    known = sorted({value for value in values if value is not None}, key=lambda value: (isinstance(value, str), value))
    if any(isinstance(value, str) for value in known):
        places = {value: place / max(1, len(known) - 1) for place, value in enumerate(known)}
        return [places.get(value, 0.5) for value in values]
    low, high = (known[0], known[-1]) if known else (0, 0)
    return [0.5 if value is None or high == low else (value - low) / (high - low) for value in values]


def _front(report: TuningReport, done: Sequence[Trial]) -> bytes:
    """Value against the first cost."""
    cost = report.objectives[1]
    figure, axes = _figure(4.6, 3.2)
    axes.scatter([trial.costs[cost] for trial in done], [trial.value for trial in done], color=FAINT, label="trials")
    front = sorted((trial.costs[cost], trial.value or 0.0) for trial in done if trial.number in report.front)
    axes.plot([x for x, _ in front], [y for _, y in front], color=CANDIDATE, marker="o", markersize=4, label="front")
    knee = next(trial for trial in done if trial.params == report.best)
    axes.scatter([knee.costs[cost]], [knee.value], color=CHAMPION, zorder=4, label="chosen")
    axes.set_xlabel({"latency": "operations for one row", "size": "parameters"}.get(cost, cost))
    axes.set_ylabel(report.objective)
    _legend(axes)
    return _png(figure)


def tick_of(key: str) -> str:
    """A settings key without its section."""
    return key.rpartition(".")[2]


def tick(name: str, number: int) -> str:
    """A label as the plots write it: itself when the font has it and there is room, else its number."""
    return name if name.isascii() and name.isprintable() and len(name) <= 16 else f"#{number}"


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """A figure of `width` x `height` inches and its axes. Built without pyplot, which would keep global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=144, facecolor="none", layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="none")
    axes.tick_params(colors=INK, labelsize=8, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(INK)
        axis.label.set_fontsize(8)
    return figure, axes


def _legend(*axes: Any) -> None:
    """One line above the plot, where no point can lie under it."""
    found = [axis.get_legend_handles_labels() for axis in axes]
    handles, names = [handle for part, _ in found for handle in part], [name for _, part in found for name in part]
    if handles:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": len(handles)}
        axes[0].legend(handles, names, fontsize=8, frameon=False, labelcolor=INK, **place)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def replay(
    days: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    promoted: Sequence[int],
    faults: Mapping[int, str] = MappingProxyType({}),
    changed: Mapping[int, Sequence[str]] = MappingProxyType({}),
) -> bytes:
    """Macro-F1 by day, a line per model, with the nights of promotions marked. On white: it stands alone.

    faults: what went wrong on a day; its band is shaded. changed: the settings that were patched in a day's night, written there.
    """
    figure, axes = _figure(9.0, 4.6)
    figure.set_facecolor("white")
    colours = (CANDIDATE, CHAMPION, "#10b981", "#8b5cf6", FAINT)
    for (name, values), colour in zip(lines.items(), colours, strict=False):
        axes.plot(days, values, color=colour, marker="o", markersize=3, linewidth=2 if colour == CANDIDATE else 1.2, label=name)
    for number, day in enumerate(promoted):
        axes.axvline(day + 0.5, color=CANDIDATE, alpha=0.25, linewidth=1, label="promotion" if number == 0 else None)
    for day, kind in faults.items():
        axes.axvspan(day - 0.4, day + 0.4, color=FAULT, alpha=0.12, linewidth=0)
        axes.text(day, 0.985, kind, rotation=90, fontsize=6, ha="center", va="top", color=FAULT)
    for day, keys in changed.items():
        axes.text(day + 0.5, 0.21, "\n".join(keys), rotation=90, fontsize=5, ha="center", va="bottom", color=FAINT)
    axes.set_xlabel("day; between days: what the night changed")
    axes.set_ylabel("macro-F1 on the day's requests")
    axes.set_xticks(list(days))
    axes.set_ylim(0.2, 1.0)
    _legend(axes)
    return _png(figure)
