"""Signals fire on evidence only: enough rows, an interval wholly below, the champion's own answers."""

from __future__ import annotations

from collections.abc import Sequence

from autoglm_ops.contracts.feedback import DriftReport
from autoglm_ops.contracts.release import Interval
from autoglm_ops.evaluation.metrics import encode
from autoglm_ops.evaluation.paired import interval
from autoglm_ops.feedback.signals import LabelledRow, SignalPolicy, derive, drift_signal

POLICY = SignalPolicy(min_rows=200, quality_drop=0.05)


def measure(truth: Sequence[str], answers: Sequence[str]) -> Interval:
    names = ("neg", "pos")
    return interval("macro_f1", encode(truth, names), encode(answers, names), labels=2, resamples=300, seed=1)


def rows(count: int, right: float, version: int = 4) -> list[LabelledRow]:
    made = []
    for number in range(count):
        label = ("neg", "pos")[number % 2]
        answer = label if number % 100 < right * 100 else ("pos", "neg")[number % 2]
        made.append(
            LabelledRow(
                id="r",
                source="api",
                text="x",
                label=label,
                predicted=answer,
                score=0.9,
                day=f"2026-01-0{1 + number % 2}",
                version=version,
            )
        )
    return made


def quality(given: list[LabelledRow], promised: float | None = 0.85) -> tuple[bool, str]:
    signal, _ = derive(given, (), version=4, promised=promised, measure=measure, policy=POLICY)
    return signal.fired, signal.reason.partition(":")[0]


def test_quality_fires_only_when_the_whole_interval_is_below() -> None:
    assert quality(rows(400, 0.6)) == (True, "quality-fell")
    assert quality(rows(400, 0.78)) == (False, "quality-holds")
    assert quality(rows(400, 0.9)) == (False, "quality-holds")


def test_few_rows_an_unknown_promise_and_older_versions_say_nothing() -> None:
    assert quality(rows(199, 0.1)) == (False, "too-few-rows")
    assert quality([]) == (False, "too-few-rows")
    assert quality(rows(400, 0.1), promised=None) == (False, "no-promise")
    assert quality(rows(400, 0.1, version=3)) == (False, "too-few-rows")


def test_reporters_who_agree_are_as_many_as_they_are() -> None:
    """Of those who say the same of a row it names the first; yet three said it."""
    three = [row.model_copy(update={"source": "alice", "sources": ("alice", "bob", "carol")}) for row in rows(400, 0.6)]
    for needed, word in ((3, "quality-fell"), (4, "too-few-reporters")):
        policy = SignalPolicy(min_rows=200, quality_drop=0.05, min_reporters=needed)
        signal, _ = derive(three, (), version=4, promised=0.85, measure=measure, policy=policy)
        assert signal.reason.startswith(word)


def test_a_signal_carries_its_evidence() -> None:
    signal, _ = derive(rows(400, 0.6), (), version=4, promised=0.85, measure=measure, policy=POLICY)
    assert signal.window == ("2026-01-01", "2026-01-02")
    assert signal.rows == 400
    assert signal.low < signal.value < signal.high < signal.threshold == 0.85 - 0.05


def test_drift_is_the_feature_furthest_over_its_threshold() -> None:
    def report(feature: str, value: float, threshold: float) -> DriftReport:
        return DriftReport(feature=feature, kind="psi", value=value, threshold=threshold, rows=300, drifted=value > threshold)

    found = drift_signal([report("length", 0.3, 0.2), report("characters", 0.25, 0.1), report("labels", 0.1, 0.2)], ("a", "b"))
    assert (found.fired, found.value) == (True, 0.25)
    assert found.reason == "drifted: psi of characters 0.250 is over 0.1 on 300 rows"
    assert not drift_signal([report("labels", 0.1, 0.2)], ("a", "b")).fired
    assert drift_signal([], ("a", "b")).reason.startswith("too-few-rows")
