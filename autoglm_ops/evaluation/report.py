"""The report of a run: one self-contained HTML page, and Markdown. Deterministic: times come later, through `insert_run_facts`.

Text of the user's (labels, settings, reasons) is escaped by the template engine. Owner of jinja2.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from autoglm_ops.errors import UsageError
from autoglm_ops.evaluation.page import Material, page

MARKER = "<!-- autoglm:run -->"
"""Stands once in every report, where the run's own facts go."""

PLOTS = ("days", "reliability", "trials", "importance", "parallel", "front", "training")


def render_html(material: Material, plots: Mapping[str, bytes]) -> str:
    """The page, with the PNGs of `plots` inlined where it has a place for them (PLOTS); one that is not given is left out."""
    images = {name: base64.b64encode(plots[name]).decode() for name in PLOTS if name in plots}
    return _render("report.html.j2", page=page(material), plots=images)


def render_markdown(material: Material) -> str:
    """The same facts without plots."""
    return _render("report.md.j2", page=page(material))


def insert_run_facts(page_html: str, rows: Iterable[tuple[str, str]]) -> str:
    """The page with a section of (name, value) rows in the marker's place. Raises UsageError when the marker is not there once."""
    if page_html.count(MARKER) != 1:
        raise UsageError(f"the page holds {MARKER} {page_html.count(MARKER)} times, not once; render the report again")
    lines = "".join(f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>' for name, value in rows)
    return page_html.replace(MARKER, f'<section><h2>This run</h2><table class="facts">{lines}</table></section>')


def _render(template: str, **values: object) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = _markdown
    return environment.get_template(template).render(**values).lstrip("\n")


def _markdown(value: object) -> str:
    """Text that stays text, and in its table cell."""
    return re.sub(r"([\\`|<>\[\]])", r"\\\1", " ".join(str(value).split()))
