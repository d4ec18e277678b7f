"""The gate: promote, reject or insufficient-evidence, with reasons. A pure function of records.

Two rules. The champion stays until a candidate is better (superiority). When production said that the texts drifted away from what
that champion knows, staying is no longer the safe side: a candidate with newer data is promoted when it is not worse beyond
`gate.margin` (non-inferiority). Which rule was used, the margin and the signal stand in the verdict.

The first word of each reason is a stable code that can be counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

from autoglm_ops.contracts.feedback import Signal
from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.record import Record
from autoglm_ops.contracts.release import Champion, EvaluationReport, GateVerdict, Interval, SliceResult, Verdict

Ruling = tuple[Verdict, tuple[str, ...]]


class GatePolicy(Record):
    """What the gate demands: the section `gate` of params.yaml, where each key is explained."""

    minimum: float
    alpha: float
    min_rows: int
    slice_drop: float
    max_model_mb: float
    margin: float = 0.0

    @property
    def promote_at(self) -> float:
        """The two-sided p-value a promotion needs: half of alpha.

        At alpha itself a gate that compares equals promotes alpha/2 of the time on average, so every second count over 1,000
        gates is above it. At half, the count stays below as well (26 or more of 1,000: probability 0.0004). A wrong promotion
        costs users, a wrong "no" costs a day, so a rejection needs alpha only.
        """
        return self.alpha / 2

    def words(self) -> str:
        """The rule in one line, for the record."""
        return (
            f"promote when the paired interval is above 0 and p <= {self.promote_at:g}; reject when it is below 0 and p <= {self.alpha:g}, "
            f"when a slice of {self.min_rows} rows or more falls by more than {self.slice_drop:g} significantly, or above "
            f"{self.max_model_mb:g} MB; without a champion beat the majority class likewise and reach {self.minimum:g}; "
            f"fewer than {self.min_rows} rows are no evidence"
        )

    def words_on_drift(self) -> str:
        """What the rule becomes under drift, for the record."""
        return (
            f"{self.words()}; the texts drifted and the candidate has newer data, so one that is not better is promoted too, when it is "
            f"not worse than the champion by {self.margin:g} (one-sided, p <= {self.promote_at / 2:g})"
        )

    def worst(self, gain: Interval) -> float:
        """The lowest gain that is still believable at the level of a promotion: one-sided, half of `promote_at`.

        The interval's own lower half, stretched from 97.5 % to that level as a normal one would be.
        """
        normal = NormalDist()
        stretch = normal.inv_cdf(1 - self.promote_at / 2) / normal.inv_cdf(0.975)
        return gain.estimate - (gain.estimate - gain.low) * stretch


def decide(report: EvaluationReport, champion: Champion, policy: GatePolicy, drift: Signal | None = None) -> GateVerdict:
    """Judge the candidate of `report`. `champion` is the snapshot the report was made against; `drift` is `drift_against` it."""
    verdict, reasons = _ruling(report, champion, policy, drift)
    return GateVerdict(
        verdict=verdict,
        policy=policy.words() if drift is None else policy.words_on_drift(),
        reasons=(*reasons, *_remarks(report, champion)),
        evidence=_evidence(report, champion, policy, drift),
    )


def drift_against(champion: Champion, said: SignalsOfDay, until: str, policy: GatePolicy) -> Signal | None:
    """The drift signal that speaks against `champion`, for a candidate with data up to the ISO day `until`.

    None when none fired, when it was said of another champion, when the candidate's data is no newer, or when gate.margin is 0.
    """
    newer = champion.data_until is not None and until > champion.data_until
    if champion.model is None or said.champion.model != champion.model or not newer or policy.margin <= 0:
        return None
    return said.named("drift")


def _ruling(report: EvaluationReport, champion: Champion, policy: GatePolicy, drift: Signal | None) -> Ruling:
    if report.model_bytes > policy.max_model_mb * 1e6:
        return _reject(f"too-large: {report.model_bytes / 1e6:.1f} MB, at most {policy.max_model_mb:g} MB are allowed")
    if report.rows < policy.min_rows:
        return _unsure(f"too-few-rows: {report.rows} rows on the gate, at least {policy.min_rows} are needed")
    if champion.model is None:
        return _first(report, policy)
    if report.against_champion is None or report.p_value_champion is None:
        return _unsure(f"champion-not-scored: {champion.model.name} v{champion.model.version} was not scored on these rows")
    fallen = tuple(_fallen(report.slices, policy))
    if fallen:
        return _reject(*fallen)
    return _against(report.against_champion, report.p_value_champion, report.metric, policy, drift)


def _against(gain: Interval, p_value: float, metric: str, policy: GatePolicy, drift: Signal | None) -> Ruling:
    said = f"{metric} {_signed(gain)} against the champion, p = {p_value:.2g}"
    if gain.low > 0 and p_value <= policy.promote_at:
        return Verdict.PROMOTE, (f"better: {said}",)
    if gain.high < 0 and p_value <= policy.alpha:
        return _reject(f"worse: {said}")
    if drift is not None:
        return _on_drift(said, policy.worst(gain), policy, drift)
    return _unsure(f"no-clear-gain: {said}; a promotion needs an interval above 0 and p <= {policy.promote_at:g}")


def _on_drift(said: str, worst: float, policy: GatePolicy, drift: Signal) -> Ruling:
    """The texts moved on, and the candidate's data with them: not clearly better, and not clearly worse."""
    bound = f"at worst {worst:+.3f}, gate.margin = {policy.margin:g}"
    if worst > -policy.margin:
        return Verdict.PROMOTE, (f"not-worse: {said}; {bound}", f"on-drift: {drift.reason}")
    return _unsure(f"may-be-worse: {said}; {bound}, and the drift alone is no reason to take that")


def _first(report: EvaluationReport, policy: GatePolicy) -> Ruling:
    """Without a champion."""
    gain, p_value, own = report.against_majority, report.p_value_majority, report.candidate
    said = f"{report.metric} {_signed(gain)} against the majority class, p = {p_value:.2g}"
    if gain.high < 0 and p_value <= policy.alpha:
        return _reject(f"worse-than-majority: {said}")
    if own.high < policy.minimum:
        return _reject(f"below-minimum: {report.metric} {_plain(own)} is wholly below gate.minimum = {policy.minimum:g}")
    if gain.low <= 0 or p_value > policy.promote_at:
        return _unsure(f"no-clear-gain: {said}; a first champion needs an interval above 0 and p <= {policy.promote_at:g}")
    if own.estimate < policy.minimum:
        return _unsure(f"below-minimum: {report.metric} {_plain(own)} does not reach gate.minimum = {policy.minimum:g}")
    reached = f"reaches-minimum: {report.metric} {_plain(own)}, gate.minimum = {policy.minimum:g}"
    return Verdict.PROMOTE, ("first-champion: no model was ever promoted", f"better-than-majority: {said}", reached)


def _fallen(slices: tuple[SliceResult, ...], policy: GatePolicy) -> Iterator[str]:
    """A reason for each slice that fell. Many slices are looked at, so each must pass at alpha over their number (Bonferroni)."""
    tested = [
        part for part in slices if part.rows >= policy.min_rows and part.difference is not None and part.p_value is not None
    ]
    for part in tested:
        assert part.difference is not None
        assert part.p_value is not None
        significant = part.difference.high < 0 and part.p_value <= policy.alpha / len(tested)
        if significant and part.difference.estimate < -policy.slice_drop:
            yield (
                f"slice-fell: {part.name} {_signed(part.difference)} over {part.rows} rows, p = {part.p_value:.2g}; "
                f"at most {policy.slice_drop:g} may be lost"
            )


def _remarks(report: EvaluationReport, champion: Champion) -> Iterator[str]:
    """What has no say in the verdict and must be said with it."""
    tfidf, own = report.baselines["tfidf"].estimate, report.candidate.estimate
    side = "below-tfidf" if own < tfidf else "not-below-tfidf"
    yield f"{side}: {report.metric} {own:.3f}, TF-IDF + logistic regression on the same rows {tfidf:.3f}"
    if champion.model is not None and report.against_majority.low <= 0:
        yield f"no-better-than-majority: {report.metric} {_signed(report.against_majority)} against the majority class"


def _evidence(report: EvaluationReport, champion: Champion, policy: GatePolicy, drift: Signal | None) -> dict[str, Any]:
    facts = report.model_dump(mode="json", exclude={"slices", "confusion", "drift"})
    model = champion.model and f"{champion.model.name} v{champion.model.version}"
    rule = policy.model_dump(exclude={"margin"} if drift is None else None)
    facts |= {"champion_model": model, "champion_metric_at_promotion": champion.metric, "policy": rule}
    return facts if drift is None else facts | {"rule": "non-inferiority", "drift_signal": drift.model_dump(mode="json")}


def _reject(*reasons: str) -> Ruling:
    return Verdict.REJECT, reasons


def _unsure(reason: str) -> Ruling:
    return Verdict.INSUFFICIENT, (reason,)


def _plain(value: Interval) -> str:
    return f"{value.estimate:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _signed(value: Interval) -> str:
    return f"{value.estimate:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"
