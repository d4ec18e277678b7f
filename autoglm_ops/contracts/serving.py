"""What the server answers with, what it remembers, and the seams it is built on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal, Protocol, Self

from pydantic import Field, model_validator

from autoglm_ops.contracts.record import Record
from autoglm_ops.contracts.release import ModelRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$"
SOURCE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,62}$"


Behaviour = Literal["accepted", "copied", "undone"]


class Prediction(Record):
    """One answered text. at: when it was answered, seconds since the epoch. event_time: when it happened, ISO; its first ten
    characters are its day. unit: a digest of who asked, empty when nobody said."""

    id: str = Field(pattern=ID_PATTERN)
    model: ModelRef
    text: str
    label: str
    score: float
    at: float
    event_time: str
    unit: str = ""

    @property
    def day(self) -> str:
        return self.event_time[:10]


class FeedbackItem(Record):
    """What somebody says of one prediction: its true label, a rating (1 good, -1 bad) that says nothing of the label, or what a user
    did with the answer, which implies one (feedback/implied.py). at: when it was said, seconds since the epoch; None is now."""

    id: str = Field(pattern=ID_PATTERN)
    source: str = Field(default="api", pattern=SOURCE_PATTERN)
    label: str | None = Field(default=None, min_length=1, max_length=128)
    rating: Literal[1, -1] | None = None
    behaviour: Behaviour | None = None
    at: float | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if sum(said is not None for said in (self.label, self.rating, self.behaviour)) != 1:
            raise ValueError("give exactly one of label (or correction), rating and behaviour")
        return self

    @property
    def kind(self) -> Literal["label", "rating", "behaviour"]:
        if self.label is not None:
            return "label"
        return "behaviour" if self.rating is None else "rating"

    @property
    def value(self) -> str:
        """What is kept of it."""
        return self.label or self.behaviour or f"{self.rating:+d}"


class FeedbackCounts(Record):
    """What became of a batch of feedback. Every item is in exactly one of accepted, replaced, repeated, unknown, refused.

    refused: reason word -> items. agreed, disagreed: new labels that equal the prediction, or do not.
    """

    accepted: int = 0
    replaced: int = 0
    repeated: int = 0
    unknown: int = 0
    refused: dict[str, int] = Field(default_factory=dict)
    agreed: int = 0
    disagreed: int = 0

    @property
    def kept(self) -> int:
        return self.accepted + self.replaced + self.repeated


class LabelledRow(Record):
    """A prediction whose truth came back. label: what most sources said. sources: those, by name; source: the first. day: ISO, of the
    event. weight: how sure the label is; below 1 nobody said it, and what users did implies it.
    """

    id: str
    text: str
    label: str
    predicted: str
    score: float
    day: str
    version: int
    source: str
    sources: tuple[str, ...] = ()
    weight: float = 1.0


class Unsure(Record):
    """A prediction worth a person's label. reason: disputed, disliked, disagreeing or uncertain."""

    id: str
    text: str
    predicted: str
    score: float
    day: str
    reason: str
    label: str = ""


class Served(Record):
    """Requests of one day that a version answered, or failed to, in more than `above` and at most `bound` seconds."""

    day: str
    version: int
    ok: bool
    above: float = Field(ge=0)
    bound: float = Field(ge=0)
    requests: int = Field(ge=0)
    texts: int = Field(ge=0)
    seconds: float = Field(ge=0)


class ArmRow(Record):
    """One judged answer of an arm (a version). unit: who asked, or the request. day: ISO, of the event."""

    version: int
    unit: str
    right: bool
    day: str


class DayTally(Record):
    """One day of traffic: answered, labelled (by a majority), of those answered rightly, and disputed (no majority)."""

    day: str
    predictions: int
    labelled: int
    correct: int
    disputed: int


class ReporterTally(Record):
    """What one source said of one day's answers: how many it labelled, and how many of those as they were answered."""

    day: str
    source: str
    rows: int
    agreed: int


class SourceTally(Record):
    """What one source has said."""

    source: str
    labels: int
    ratings: int
    last: float


class Classifier(Protocol):
    """A loaded model. Called from one thread at a time."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    def predict(self, texts: Sequence[str], batch_size: int) -> NDArray[np.floating]:
        """Probabilities, float [len(texts), len(labels)]; every row sums to 1."""
        ...


class ModelSource(Protocol):
    """Where the model to serve is named, and how its bytes are had."""

    def current(self) -> ModelRef:
        """What should be served now. Raises TryAgain when that cannot be asked, Refused or UsageError when there is none."""
        ...

    def load(self, ref: ModelRef) -> Classifier:
        """Fetch, check every byte against `ref.digest`, load. Raises Tampered, TryAgain."""
        ...


class Memory(Protocol):
    """Where predictions and feedback are kept (feedback/intake.py). Both calls return at once; a result means it is on disk."""

    def remember(self, predictions: Sequence[Prediction]) -> Future[None]:
        """Raises, in the future: UsageError when an id already names another text, TryAgain when the disk refuses."""
        ...

    def receive(self, items: Sequence[FeedbackItem], now: float, labels: frozenset[str] | None) -> Future[FeedbackCounts]: ...

    def observe(self, day: str, version: int, texts: int, seconds: float, *, ok: bool) -> None:
        """Count a request that was answered, or failed by our fault. It reaches the disk within seconds."""
        ...

    def close(self) -> None: ...


Clock = Callable[[], float]
"""Seconds since the epoch."""
