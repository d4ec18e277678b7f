"""Validation reports as self-contained pages. Pure: the same report gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from autoglm_ops.contracts.data import Expectation, ValidationReport
from autoglm_ops.contracts.flow import SuiteReport

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1b1f24}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .7rem;border-bottom:1px solid #d8dee4;vertical-align:top}
th{background:#f6f8fa}td.n{text-align:right;font-variant-numeric:tabular-nums}
.ok{color:#1a7f37}.no{color:#b3261e;font-weight:600}code{font-size:.92em}
"""


def page(report: ValidationReport) -> str:
    """HTML: the verdict with its reasons, the counts, and every expectation with what was expected and seen."""
    return _page(report, "<h2>Rows</h2>", _table(("", "rows"), _counts(report)))


def documents_page(report: SuiteReport) -> str:
    """The same of a built dataset: the counts are what was looked at, and what that says of the rest."""
    rows: list[tuple[str, ...]] = [("in the dataset", _number(report.rows)), ("looked at", _number(report.looked))]
    named = f"<p>Dataset <code>{escape(report.dataset)}</code>, suite <code>{escape(report.suite)}</code>.</p>"
    documents = _table(("", "documents"), rows)
    return _page(report, named, "<h2>Documents</h2>", documents, f"<p>{escape(_sure(report))}</p>", *_drift(report))


def _drift(report: SuiteReport) -> list[str]:
    if report.against is None:
        return []
    lines = [
        (
            '<span class="no">drifted</span>' if item.drifted else '<span class="ok">steady</span>',
            f"{item.kind} of {item.feature}",
            f"{item.value:.4f}",
            f"{item.threshold:g}",
        )
        for item in report.drift
    ]
    title = f"<h2>Against the version before</h2><p>Dataset <code>{escape(report.against)}</code>.</p>"
    return [title, _table(("", "measure", "value", "limit"), lines) if lines else "<p>Too few documents to compare.</p>"]


def _sure(report: SuiteReport) -> str:
    if not report.unseen:
        return "Every document was looked at."
    return (
        "These were drawn by a hash of their ids. A fault that none of these has is, at 95 % confidence, "
        f"in less than {report.unseen:.3%} of the documents."
    )


def _page(report: ValidationReport | SuiteReport, *middle: str) -> str:
    mark = "ok" if report.verdict == "accepted" else "no"
    body = [
        f'<h1>Validation: <span class="{mark}">{report.verdict}</span></h1>',
        _reasons(report.reasons),
        *middle,
        "<h2>Expectations</h2>",
        _table(("", "expectation", "column", "expected", "observed"), (_line(item) for item in report.expectations)),
    ]
    head = f'<meta charset="utf-8"><title>Validation: {report.verdict}</title><style>{_STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(filter(None, body)) + "\n</body></html>\n"
    )


def _reasons(reasons: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(reason)}</li>' for reason in reasons)}</ul>" if reasons else ""


def _counts(report: ValidationReport) -> list[tuple[str, ...]]:
    bad = sum(report.quarantined.values())
    return [
        ("read", _number(report.rows_in)),
        ("accepted", _number(report.rows_out)),
        (f"quarantined, of a budget of {report.budget:,}", _number(bad)),
        *((f"&emsp;{escape(word)}", _number(count)) for word, count in report.quarantined.items()),
    ]


def _line(item: Expectation) -> tuple[str, ...]:
    mark = '<span class="ok">met</span>' if item.success else '<span class="no">failed</span>'
    name = item.name.removeprefix("expect_").replace("_", " ")
    return (
        mark,
        escape(name),
        f"<code>{escape(item.column)}</code>" if item.column else "table",
        escape(item.expected),
        escape(item.observed),
    )


def _number(value: int) -> str:
    return f'<span style="float:right">{value:,}</span>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f"<table><tr>{titles}</tr>\n" + "\n".join(f"<tr>{line}</tr>" for line in lines) + "\n</table>"
