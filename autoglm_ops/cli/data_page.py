"""A location's profile as tables: for the terminal, and as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from autoglm_ops.contracts.flow import LocationProfile

Rows = list[tuple[str, str]]
_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{font-size:1.4rem}table{border-collapse:collapse;width:100%;margin-bottom:1.5rem}
th,td{text-align:left;padding:.3rem .7rem;border-bottom:1px solid #d8dee4}th{background:#f6f8fa}
td.n{text-align:right;font-variant-numeric:tabular-nums;width:9rem}
td.b div{background:#3b82f6;height:.7rem;border-radius:2px}
"""


def tables(found: LocationProfile) -> list[tuple[str, Rows]]:
    """Title and rows of every table that has something to say."""
    whole: Rows = [
        ("files", f"{found.files:,}" + (f" ({found.ignored:,} of unknown formats left alone)" if found.ignored else "")),
        ("looked at", f"{found.bytes / 1e6:,.1f} MB"),
        ("rows", f"{found.rows:,}"),
        ("repeated rows", f"{found.repeated:,} ({_share(found.repeated, found.rows)})"),
        ("empty texts", f"{found.empty:,}"),
        ("days", f"{found.days[0]} to {found.days[1]}" if found.days[0] else "none given"),
    ]
    lengths: Rows = [(_quantile(name), f"{value:,}") for name, value in found.lengths.items()]
    counted = {
        "unreadable lines": (found.rejected, found.rows + sum(found.rejected.values())),
        f"language (of {found.sample:,} texts)": (found.languages, found.sample),
        f"personal data (in {found.sample:,} texts)": (found.personal, found.sample),
        "label": (found.labels, found.rows),
        "source": (found.sources, found.rows),
    }
    listed = [(title, _counts(counts, total)) for title, (counts, total) in counted.items() if counts]
    return [("location", whole), ("characters", lengths), *listed]


def html(found: LocationProfile) -> str:
    """The same tables as a page. Pure: the same profile gives the same bytes."""
    body = "\n".join(_table(title, rows) for title, rows in tables(found))
    head = f'<meta charset="utf-8"><title>Data profile</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><h1>Data profile</h1>\n{body}\n</body></html>\n'


def _counts(counts: Mapping[str, int], total: int) -> Rows:
    return [(name or "-", f"{count:,} ({_share(count, total)})") for name, count in counts.items()]


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _quantile(name: str) -> str:
    return {"0": "shortest", "0.5": "median", "1": "longest"}.get(name, f"{float(name):.0%} are shorter")


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = "\n".join(
        f'<tr><td>{escape(name)}</td><td class="n">{escape(value)}</td>{_bar(value)}</tr>' for name, value in rows
    )
    return f"<table><tr><th>{escape(title)}</th><th></th><th></th></tr>\n{lines}\n</table>"


def _bar(value: str) -> str:
    share = value.rpartition("(")[2].rstrip("%)")
    width = float(share) if value.endswith("%)") else 0.0
    return f'<td class="b"><div style="width:{width:.1f}%"></div></td>'
