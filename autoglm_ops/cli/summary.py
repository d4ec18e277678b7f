"""The summary of a run for a terminal: what was made of what, whether it is better, and what happened with it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def render(summary: dict[str, Any], console: Console) -> None:
    """Print `latest/summary.json` as a table."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in rows(summary):
        table.add_row(name, text)
    console.print(table)


def rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and text of every line."""
    data, training, evaluation = summary["dataset"], summary["training"], summary["evaluation"]
    tuning, gate, release, seconds = summary["tuning"], summary["gate"], summary["release"], summary["seconds"]
    counts = data["rows"] if isinstance(data["rows"], dict) else {"rows": data["rows"]}
    return [
        ("run", summary["run"]),
        ("dataset", f"{data['version'][:12]}  {', '.join(f'{k} {v:,}' for k, v in counts.items())}; quarantined {data['quarantined']}"),
        ("validation", summary["validation"]["verdict"]),
        ("tuning", f"{tuning['trials']} trials; best {_settings(tuning['best'])}"),
        (
            "training",
            f"{training['ranks']} rank{'s' * (training['ranks'] != 1)}, ZeRO {training['zero_stage']}, {training['steps']} steps"
            + (f", {training['tokens_per_second']:,.0f} tokens/s" if training.get("tokens_per_second") else "")
            + _int8(training.get("quantised")),
        ),
        (evaluation["metric"], _scores(evaluation)),
        ("gate", "\n".join([gate["verdict"], *(f"- {reason}" for reason in gate["reasons"])])),
        ("release", _release(release)),
        ("seconds", ", ".join(f"{name} {value:.0f}" for name, value in seconds["stages"].items())
         + f"; platform overhead {seconds['overhead']:.0f}"),
    ]  # fmt: skip


def _int8(made: dict[str, Any] | None) -> str:
    if made is None:
        return ""
    sizes = " -> ".join(f"{made[key] / 1e6:.1f}" for key in ("bytes_before", "bytes_after"))
    return f"\nint8: {sizes} MB, validation {made['before']:.4f} -> {made['after']:.4f}"


def _settings(best: dict[str, Any]) -> str:
    shown = (
        f"{key.rpartition('.')[2]} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in best.items()
    )
    return ", ".join(shown) or "params.yaml as it is"


def _scores(evaluation: dict[str, Any]) -> str:
    parts = [f"candidate {_interval(evaluation['candidate'])}"]
    parts.append(f"champion {_interval(evaluation['champion'])}" if evaluation["champion"] else "no champion yet")
    parts += [f"{name} {_interval(value)}" for name, value in evaluation["baselines"].items()]
    return "\n".join(parts)


def _interval(value: dict[str, float] | float) -> str:
    if not isinstance(value, dict):
        return f"{value:.3f}"
    return f"{value['estimate']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def _release(release: dict[str, Any]) -> str:
    if not release.get("version"):
        return "nothing registered"
    alias = f" is {release['alias']}" if release.get("alias") else " registered, not promoted"
    return f"{release['name']} v{release['version']}{alias}" + (f" (git tag {release['tag']})" if release.get("tag") else "")
