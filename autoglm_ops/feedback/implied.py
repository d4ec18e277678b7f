"""What users do with an answer implies its label, more or less surely. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

CONFIDENCE = {"accepted": 0.5, "copied": 0.6, "undone": -0.5}
"""How much one act says for the answer (above 0) or against it. Chosen low: an act is no statement, and an explicit label wins."""
MOST = 0.9
"""However many acts agree, an implied label never weighs as much as one that somebody gave."""


def implied(predicted: str, acts: Iterable[str], labels: Sequence[str]) -> tuple[str, float] | None:
    """The label that `acts` on an answer imply, and its weight in (0, MOST].

    Acts against the answer imply the other label where there are two, and none where there are more.
    """
    balance = sum(CONFIDENCE[act] for act in acts)
    weight = round(min(MOST, abs(balance)), 6)
    if not weight:
        return None
    if balance > 0:
        return predicted, weight
    others = [label for label in labels if label != predicted]
    return (others[0], weight) if len(others) == 1 else None
