"""The page: self-contained, the same bytes again, hostile text stays text, facts go where the marker stands."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from autoglm_ops.contracts.data import DatasetVersion, Expectation, ValidationReport
from autoglm_ops.contracts.feedback import DriftReport, PatchSet, SearchSpacePatch, Signal
from autoglm_ops.contracts.release import Champion, GateVerdict, Interval, ModelRef, Verdict
from autoglm_ops.contracts.training import ParallelPlan, TrainingRecord, Trial, TuningReport
from autoglm_ops.errors import UsageError
from autoglm_ops.evaluation.assess import Answers, Method, Sizes, assess
from autoglm_ops.evaluation.gate import GatePolicy, decide
from autoglm_ops.evaluation.page import Material, arrow, text
from autoglm_ops.evaluation.report import MARKER, insert_run_facts, render_html, render_markdown

HOSTILE = "<script>alert(1)</script> | `x` <!-- autoglm:run -->"


def material(label: str = "neg", champion: bool = True, verdict: Verdict = Verdict.PROMOTE) -> Material:
    truth = [label, "pos"] * 50
    old = ["pos"] * 100 if champion else None
    answers = Answers(["text"] * 100, ["2026-01-01"] * 100, truth, truth, old, ["pos"] * 100, truth[:90] + ["pos"] * 10)
    drift = (DriftReport(feature="length", kind="psi", value=0.3, threshold=0.2, rows=100, drifted=True),)
    patch = SearchSpacePatch(
        key="tune.space.train.learning_rate", old={"loguniform": [5e-4, 0.01]}, new={"loguniform": [5e-4, 0.0125]}, signal="drift",
        reason=label, evidence={}, created="2026-01-01", expires="2026-01-08",
    )  # fmt: skip
    return Material(
        validation=ValidationReport(
            verdict="accepted", rows_in=120, rows_out=110, quarantined={"empty-text": 10}, budget=100,
            expectations=(Expectation(name="expect_column_values_to_not_be_null", column=label, success=True, expected="all", observed="110 of 110"),),
        ),
        dataset=DatasetVersion(
            digest="ab" * 32, rows={"train": 800, "validation": 90, "gate": 100}, labels=(label, "pos"), dropped={"duplicate": 5},
            first_day="2026-01-01", last_day="2026-01-03", gate_days=("2026-01-03",), label_share={"train": {label: 0.5, "pos": 0.5}},
        ),
        plan=ParallelPlan(
            ranks=2, micro_batch=16, accumulation=2, zero_stage=1, precision="fp32", device="cpu", threads_per_rank=1,
            memory_bytes={"total": 10_000_000, "usable": 90_000_000}, fits=True, reasons=("ranks: two cores",),
        ),
        tuning=TuningReport(
            verdict="tuned", objective="macro_f1", direction="maximize", space={}, best={"train.learning_rate": 0.002}, best_value=0.8,
            trials=(Trial(number=0, params={"train.learning_rate": 0.002}, state="complete", value=0.8),
                    Trial(number=1, params={"train.learning_rate": 0.01}, state="failed", value=None)),
        ),
        training=TrainingRecord(
            architecture="glm", parameters=1000, plan_digest="", settings={"train": {"learning_rate": 0.002}, "seed": 7}, steps=10,
            epochs=1.0, samples=10, tokens=100, losses=((1, 0.7),), validation=((10, 0.8),), best_step=10, weights_sha256="cd" * 32,
        ),
        evaluation=assess(answers, Method("macro_f1", 200, 1), Sizes(1_000_000, 2_000_000 if champion else None), drift),
        verdict=GateVerdict(verdict=verdict, policy="the rule", reasons=(f"better: {label}",), evidence={}),
        champion=Champion(model=ModelRef(name="autoglm", version=3, digest="0" * 64)) if champion else Champion(),
        patches=PatchSet(patches=(patch,)),
    )  # fmt: skip


class Page(HTMLParser):
    """What a browser would fetch or run, and whether tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img", "br", "link"}:
            self.open.append(tag)
        self.outside += [tag] if tag in {"script", "link", "iframe"} else []
        self.outside += [value for name, value in attrs if name in {"src", "href"} and value and not value.startswith("data:")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_says_of_which_steps_the_published_mean_is() -> None:
    given = material()
    assert "step 10, validation 0.8" in render_html(given, {})
    averaged = given.training.model_copy(update={"averaged_from": 6})
    assert "mean of the weights of steps 6 to 10, validation 0.8" in render_html(replace(given, training=averaged), {})


@pytest.mark.parametrize("champion", [True, False])
def test_the_page_needs_nothing_from_outside_and_is_well_formed(champion: bool) -> None:
    html = render_html(material(champion=champion), {"days": b"\x89PNG one", "unknown": b"x"})
    page = Page(html)
    assert (page.open, page.outside) == ([], [])
    assert html.startswith("<!doctype html>")
    assert html.count("data:image/png;base64,") == 1
    assert html == render_html(material(champion=champion), {"days": b"\x89PNG one"})


def test_the_page_says_what_the_records_say() -> None:
    html = render_html(material(), {})
    plain = " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.S).split())
    for words in (
        "Promote: the candidate is better", "champion autoglm v3", "TF-IDF + logistic regression", "10 of a budget of 100 (empty-text 10)",
        "expectations 1 of 1 met", "met expect_column_values_to_not_be_null",
        "rows for train 800", "length psi 0.300 0.2 drifted", "loguniform [0.0005, 0.01]", "total 10.0 MB: fits", "ranks: two cores",
        "train.learning_rate 0.002", "2 × 16 × 2 = 64", "2.0 MB",
    ):  # fmt: skip
        assert words in plain, words


def test_hostile_text_stays_text_in_both_formats() -> None:
    html = render_html(material(HOSTILE), {})
    assert "<script>" not in html
    assert html.count(MARKER) == 1
    markdown = render_markdown(material(HOSTILE))
    assert not re.search(r"(?<!\\)<script", markdown)
    rows = [line for line in markdown.splitlines() if line.startswith("| label")]
    assert len(rows) == 2
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)


@pytest.mark.parametrize(("verdict", "words"), [(Verdict.REJECT, "▼ Reject"), (Verdict.INSUFFICIENT, "● Insufficient")])
def test_the_banner_is_that_of_the_verdict(verdict: Verdict, words: str) -> None:
    assert words in render_html(material(verdict=verdict), {})
    assert render_markdown(material(verdict=verdict)).startswith(f"# AutoGLM Ops: {words}")


def test_a_promotion_on_drift_does_not_claim_that_the_candidate_is_better() -> None:
    given, policy = material(), GatePolicy(minimum=0.5, alpha=0.05, min_rows=50, slice_drop=0.5, max_model_mb=10, margin=0.1)
    fields = {"name": "drift", "fired": True, "value": 0.3, "threshold": 0.1, "low": 0.3, "high": 0.3, "rows": 400}
    drift = Signal.model_validate({**fields, "window": ("2026-01-03", "2026-01-03"), "reason": "drifted: much"})
    for gain, p_value, words in (
        (Interval(estimate=-0.01, low=-0.02, high=0.01), 0.4, "▲ Promote: the texts drifted, and the candidate is not worse"),
        (Interval(estimate=0.2, low=0.1, high=0.3), 0.001, "▲ Promote: the candidate is better"),
    ):
        evaluation = given.evaluation.model_copy(update={"against_champion": gain, "p_value_champion": p_value, "slices": ()})
        verdict = decide(evaluation, given.champion, policy, drift)
        judged = replace(given, evaluation=evaluation, verdict=verdict)
        assert words in render_html(judged, {}) and render_markdown(judged).startswith(f"# AutoGLM Ops: {words}")


def test_run_facts_take_the_markers_place_once() -> None:
    html = insert_run_facts(render_html(material(), {}), [("seconds", "train 60 <b>"), ("released", "v4")])
    assert "train 60 &lt;b&gt;" in html
    assert Page(html).open == []
    with pytest.raises(UsageError, match="0 times, not once"):
        insert_run_facts(html, [])


def test_an_arrow_needs_the_whole_interval() -> None:
    def sign(low: float, high: float) -> Any:
        return arrow(Interval(estimate=(low + high) / 2, low=low, high=high))["arrow"]

    assert [sign(0.01, 0.1), sign(-0.1, -0.01), sign(-0.01, 0.1), sign(0, 0)] == ["▲", "▼", "●", "●"]
    assert arrow(None)["arrow"] == ""


def test_values_are_written_for_readers() -> None:
    assert [text(value) for value in (None, 0.0005, 3, [1, 2], {"int": [1, 2]})] == [
        "unset",
        "0.0005",
        "3",
        "[1, 2]",
        "int [1, 2]",
    ]
