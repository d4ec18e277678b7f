"""Records of production: what was seen there, and what it changes."""

from __future__ import annotations

from typing import Any, Literal

from autoglm_ops.contracts.record import Record


class Profile(Record):
    """What a set of texts looks like: shares over fixed bins, so that two profiles compare bin by bin.

    length: characters per text. characters: hashed, each row counting once. labels: empty when they are not known.
    """

    rows: int
    length: tuple[float, ...]
    characters: tuple[float, ...]
    labels: dict[str, float]


class EmbeddingSample(Record):
    """`embeddings.json` in a model folder: what the model makes of held-out texts, in bounded form (see monitoring.embedding).

    vectors: [rows, numbers]. width: how long they were before they were bounded.
    """

    width: int
    vectors: tuple[tuple[float, ...], ...]


class DriftReport(Record):
    """Distribution of one feature now against the training reference."""

    feature: str
    kind: Literal["psi", "kl", "ks", "mmd"]
    value: float
    threshold: float
    rows: int
    drifted: bool


SignalName = Literal["quality", "drift", "latency", "error-rate", "cost", "variance", "decline"]


class Signal(Record):
    """One thing production said, with the evidence it stands on. `value` against `threshold`, over `rows` rows of `window`.

    silent: there was too little to say anything; `value` is no measurement then.
    """

    name: SignalName
    fired: bool
    value: float
    threshold: float
    low: float
    high: float
    rows: int
    window: tuple[str, str]
    reason: str
    silent: bool = False


class SearchSpacePatch(Record):
    """One bounded change of one key of the search space, or of a fixed setting. Undone by swapping `old` and `new`."""

    key: str
    old: Any
    new: Any
    signal: str
    reason: str
    evidence: dict[str, Any]
    created: str
    expires: str


class PatchSet(Record):
    """`inputs/patches.json`: the active patches, oldest first."""

    patches: tuple[SearchSpacePatch, ...] = ()


class FeedbackSnapshot(Record):
    """`inputs/feedback.json`: labels that came back from production, by the digest of the stored folder (`labels.jsonl`)."""

    digest: str | None = None
    rows: int = 0
    until: str | None = None


class Alert(Record):
    """Something a person should know."""

    name: str
    severity: Literal["info", "warning", "critical"]
    message: str
    labels: dict[str, str] = {}
