"""The gate's rule case by case, and its error rates by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autoglm_ops.contracts.feedback import Signal
from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.release import Champion, EvaluationReport, Interval, ModelRef, SliceResult, Verdict
from autoglm_ops.evaluation.gate import GatePolicy, decide, drift_against
from autoglm_ops.evaluation.paired import compare

POLICY = GatePolicy(minimum=0.6, alpha=0.05, min_rows=100, slice_drop=0.1, max_model_mb=10)
CHAMPION = Champion(model=ModelRef(name="autoglm", version=3, digest="0" * 64), metric=0.8)


ON_DRIFT = POLICY.model_copy(update={"margin": 0.03})
DRIFT = Signal(
    name="drift",
    fired=True,
    value=0.3,
    threshold=0.1,
    low=0.3,
    high=0.3,
    rows=1200,
    window=("2026-01-05", "2026-01-05"),
    reason="drifted: kl of characters 0.300 is over 0.1 on 1200 rows",
)


def span(estimate: float, half: float = 0.02) -> Interval:
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half)


def report(**changes: Any) -> EvaluationReport:
    """A candidate at 0.80 with a champion at 0.75, clearly apart, unless told otherwise."""
    base: dict[str, Any] = {
        "metric": "macro_f1",
        "rows": 500,
        "candidate": span(0.80),
        "champion": span(0.75),
        "baselines": {"majority": span(0.33), "tfidf": span(0.78)},
        "against_champion": span(0.05),
        "against_majority": span(0.47),
        "p_value_champion": 0.001,
        "p_value_majority": 0.0005,
        "slices": (),
        "confusion": {},
        "model_bytes": 1_000_000,
        "champion_bytes": 1_000_000,
    }
    return EvaluationReport(**(base | changes))


def alone(**changes: Any) -> EvaluationReport:
    return report(**({"champion": None, "against_champion": None, "p_value_champion": None, "champion_bytes": None} | changes))


def fallen(rows: int, gain: Interval, p_value: float = 0.0005) -> dict[str, Any]:
    return {
        "slices": (
            SliceResult(name="day=2026-01-03", rows=rows, candidate=0.5, champion=0.7, difference=gain, p_value=p_value),
        )
    }


@pytest.mark.parametrize(
    ("case", "verdict", "code"),
    [
        (report(), Verdict.PROMOTE, "better"),
        (report(against_champion=span(-0.05)), Verdict.REJECT, "worse"),
        (report(against_champion=span(0.01), p_value_champion=0.3), Verdict.INSUFFICIENT, "no-clear-gain"),
        (report(against_champion=span(0.03), p_value_champion=0.04), Verdict.INSUFFICIENT, "no-clear-gain"),
        (report(rows=99), Verdict.INSUFFICIENT, "too-few-rows"),
        (report(model_bytes=10_000_001), Verdict.REJECT, "too-large"),
        (report(**fallen(100, span(-0.2))), Verdict.REJECT, "slice-fell"),
        (report(**fallen(99, span(-0.2))), Verdict.PROMOTE, "better"),
        (report(**fallen(100, span(-0.09))), Verdict.PROMOTE, "better"),
        (report(**fallen(100, span(-0.2, 0.3))), Verdict.PROMOTE, "better"),
        (report(**fallen(100, span(-0.2), p_value=0.2)), Verdict.PROMOTE, "better"),
        (alone(), Verdict.INSUFFICIENT, "champion-not-scored"),
    ],
)
def test_with_a_champion(case: EvaluationReport, verdict: Verdict, code: str) -> None:
    found = decide(case, CHAMPION, POLICY)
    assert found.verdict is verdict
    assert found.reasons[0].startswith(f"{code}: ")


@pytest.mark.parametrize(
    ("case", "verdict", "code"),
    [
        (alone(), Verdict.PROMOTE, "first-champion"),
        (alone(candidate=span(0.59)), Verdict.INSUFFICIENT, "below-minimum"),
        (alone(candidate=span(0.55)), Verdict.REJECT, "below-minimum"),
        (alone(against_majority=span(0.01), p_value_majority=0.4), Verdict.INSUFFICIENT, "no-clear-gain"),
        (alone(against_majority=span(-0.1), p_value_majority=0.001), Verdict.REJECT, "worse-than-majority"),
        (alone(rows=20), Verdict.INSUFFICIENT, "too-few-rows"),
    ],
)
def test_without_a_champion(case: EvaluationReport, verdict: Verdict, code: str) -> None:
    found = decide(case, Champion(), POLICY)
    assert found.verdict is verdict
    assert found.reasons[0].startswith(f"{code}: ")


def test_a_model_below_tfidf_is_promoted_only_with_that_said() -> None:
    low = decide(report(baselines={"majority": span(0.33), "tfidf": span(0.85)}), CHAMPION, POLICY)
    assert low.verdict is Verdict.PROMOTE
    assert "below-tfidf: macro_f1 0.800, TF-IDF + logistic regression on the same rows 0.850" in low.reasons
    assert any(reason.startswith("not-below-tfidf: ") for reason in decide(report(), CHAMPION, POLICY).reasons)


def test_the_verdict_carries_its_rule_and_its_numbers() -> None:
    found = decide(report(), CHAMPION, POLICY)
    assert "p <= 0.025" in found.policy
    assert found.evidence["against_champion"]["estimate"] == 0.05
    assert found.evidence["champion_model"] == "autoglm v3"


def gate(rng: np.random.Generator, rows: int, candidate: float, champion: float, drift: Signal | None = None) -> Verdict:
    """One day's gate: fresh rows, two models right with the given chances whose errors overlap as real ones do."""
    truth = rng.integers(0, 2, rows)
    shared, alike = rng.random(rows), rng.random(rows) < 0.5
    right = [np.where(alike, shared, rng.random(rows)) < chance for chance in (candidate, champion)]
    first, second = (np.where(hit, truth, 1 - truth) for hit in right)
    found = compare("macro_f1", truth, first, second, labels=2, resamples=1000, seed=int(rng.integers(2**31)))
    judged = report(rows=rows, against_champion=found.difference, p_value_champion=found.p_value)
    return decide(judged, CHAMPION, POLICY if drift is None else ON_DRIFT, drift).verdict


@pytest.mark.parametrize("rows", [150, 560])
def test_of_1000_gates_between_equals_at_most_25_promote(rows: int) -> None:
    rng = np.random.default_rng(20260101)
    assert sum(gate(rng, rows, 0.8, 0.8) is Verdict.PROMOTE for _ in range(1000)) <= 25


def test_a_gain_of_seven_points_on_560_rows_is_found_four_times_of_five() -> None:
    rng = np.random.default_rng(20260102)
    assert sum(gate(rng, 560, 0.87, 0.8) is Verdict.PROMOTE for _ in range(300)) >= 240


@pytest.mark.parametrize(
    ("gain", "verdict", "code"),
    [
        (span(0.05), Verdict.PROMOTE, "better"),
        (span(0.005, 0.02), Verdict.PROMOTE, "not-worse"),
        (span(0.0, 0.027), Verdict.INSUFFICIENT, "may-be-worse"),
        (span(-0.01, 0.025), Verdict.INSUFFICIENT, "may-be-worse"),
        (span(-0.01, 0.005), Verdict.REJECT, "worse"),
    ],
)
def test_on_drift_newer_data_needs_only_not_to_be_worse(gain: Interval, verdict: Verdict, code: str) -> None:
    p_value = 0.001 if gain.low > 0 or gain.high < 0 else 0.4
    found = decide(report(against_champion=gain, p_value_champion=p_value), CHAMPION, ON_DRIFT, DRIFT)
    assert (found.verdict, found.reasons[0].split(":")[0]) == (verdict, code)
    assert found.evidence["rule"] == "non-inferiority" and found.evidence["policy"]["margin"] == 0.03
    assert found.evidence["drift_signal"]["value"] == 0.3 and "worse than the champion by 0.03" in found.policy


def test_on_drift_a_fallen_slice_still_rejects() -> None:
    found = decide(report(**fallen(100, span(-0.2))), CHAMPION, ON_DRIFT, DRIFT)
    assert (found.verdict, found.reasons[0].split(":")[0]) == (Verdict.REJECT, "slice-fell")


def test_drift_counts_only_against_the_champion_it_was_said_of_and_for_newer_data() -> None:
    champion = CHAMPION.model_copy(update={"data_until": "2026-01-04"})
    said = SignalsOfDay(day="2026-01-05", champion=champion, fired=True, signals=(DRIFT,))
    assert drift_against(champion, said, "2026-01-05", ON_DRIFT) == DRIFT
    other = champion.model_copy(update={"model": ModelRef(name="autoglm", version=4, digest="1" * 64)})
    quiet = said.model_copy(update={"signals": (DRIFT.model_copy(update={"fired": False}),)})
    for case in (
        (champion, said, "2026-01-04", ON_DRIFT),
        (other, said, "2026-01-05", ON_DRIFT),
        (champion, quiet, "2026-01-05", ON_DRIFT),
        (champion, SignalsOfDay(), "2026-01-05", ON_DRIFT),
        (champion, said, "2026-01-05", POLICY),
        (Champion(), said, "2026-01-05", ON_DRIFT),
    ):
        assert drift_against(*case) is None


def test_without_drift_the_verdict_says_what_it_said_before() -> None:
    assert decide(report(), CHAMPION, ON_DRIFT) == decide(report(), CHAMPION, POLICY)


@pytest.mark.parametrize("rows", [pytest.param(150, marks=pytest.mark.slow), 560])
def test_on_drift_of_1000_models_worse_by_the_margin_at_most_25_promote(rows: int) -> None:
    rng = np.random.default_rng(20260103)
    assert sum(gate(rng, rows, 0.77, 0.8, DRIFT) is Verdict.PROMOTE for _ in range(1000)) <= 25


def test_on_drift_a_gain_of_three_points_on_560_rows_is_found_four_times_of_five() -> None:
    rng = np.random.default_rng(20260104)
    assert sum(gate(rng, 560, 0.83, 0.8, DRIFT) is Verdict.PROMOTE for _ in range(300)) >= 240
