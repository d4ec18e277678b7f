"""What clients may send. Everything is bounded; a key that is not here is an error."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from autoglm_ops.contracts.serving import ID_PATTERN, SOURCE_PATTERN, Behaviour, FeedbackItem
from autoglm_ops.serving.faults import RequestError
from autoglm_ops.serving.strict import fault_of

MAX_TEXTS = 256
MAX_CHARS = 20_000
MAX_FEEDBACK = 1000
OLDEST = date(1970, 1, 1)


def _readable(text: str) -> str:
    if not text.strip():
        raise ValueError("a text must not be blank")
    if "\0" in text:
        raise ValueError("a text must not hold NUL")
    return text


Text = Annotated[str, Field(max_length=MAX_CHARS), AfterValidator(_readable)]
Id = Annotated[str, Field(pattern=ID_PATTERN)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ClassifyRequest(_Request):
    """POST /v1/classify. ids: names for the texts, to give feedback by; one id names one text for ever. user: who asks, so that one
    user is answered by one model while two are compared; only a digest of it is kept."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    model: str | None = Field(default=None, max_length=200)
    timestamp: str | None = Field(default=None, max_length=40)
    ids: Annotated[list[Id], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    user: str | None = Field(default=None, min_length=1, max_length=200)

    @model_validator(mode="after")
    def _one_id_a_text(self) -> Self:
        if self.ids is not None and len(self.ids) != len(self.texts):
            raise ValueError(f"{len(self.texts)} texts but {len(self.ids)} ids; give one id a text, or none")
        if self.ids is not None and len(set(self.ids)) != len(self.ids):
            raise ValueError("an id stands twice in ids")
        return self

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input

    def names(self, request_id: str) -> list[str]:
        """An id per text: the client's own, or the request's (with a number, where there are several)."""
        if self.ids is not None:
            return self.ids
        return [request_id] if isinstance(self.input, str) else [f"{request_id}.{number}" for number in range(len(self.texts))]


class FeedbackEntry(_Request):
    """What a client says of one answer. correction is another word for label; request_id for id. behaviour: what a user did with it.
    timestamp: when it was said, if not now."""

    id: Id | None = None
    request_id: Id | None = None
    label: str | None = Field(default=None, max_length=128)
    correction: str | None = Field(default=None, max_length=128)
    rating: Literal[1, -1] | None = None
    behaviour: Behaviour | None = None
    timestamp: str | None = Field(default=None, max_length=40)
    source: str | None = Field(default=None, pattern=SOURCE_PATTERN)

    def item(self, source: str) -> FeedbackItem:
        """The record. Raises RequestError 422 unless there is exactly one id and one statement."""
        if (self.id is None) == (self.request_id is None):
            raise RequestError(422, "invalid_value", "give the id of the answer, once: id (or request_id)", param="id")
        if self.label is not None and self.correction is not None:
            raise RequestError(422, "invalid_value", "give label or correction, not both: they mean the same", param="label")
        label = self.correction if self.label is None else self.label
        try:
            return FeedbackItem(
                id=self.id or self.request_id or "",
                source=self.source or source,
                label=label,
                rating=self.rating,
                behaviour=self.behaviour,
                at=None if self.timestamp is None else moment(self.timestamp).timestamp(),
            )
        except ValidationError as error:
            raise fault_of(error) from error


class FeedbackRequest(FeedbackEntry):
    """POST /v1/feedback: one entry, or `items` of them; a `source` beside `items` is that of all that name none."""

    items: Annotated[list[FeedbackEntry], Field(min_length=1, max_length=MAX_FEEDBACK)] | None = None

    def entries(self) -> list[FeedbackItem]:
        """The records. Raises RequestError 422."""
        source = self.source or "api"
        if self.items is None:
            return [self.item(source)]
        if self.model_fields_set - {"items", "source"}:
            raise RequestError(422, "invalid_value", "beside items only source may stand", param="items")
        return [entry.item(source) for entry in self.items]


def event_time(timestamp: str | None, now: float) -> str:
    """When it happened, as ISO in UTC: a day stays a day. Raises RequestError 422 for what is no time, or is in the future."""
    present = datetime.fromtimestamp(now, UTC)
    if timestamp is None:
        return present.strftime("%Y-%m-%dT%H:%M:%SZ")
    when = moment(timestamp)
    day, text = when.date(), timestamp if len(timestamp) == 10 else when.strftime("%Y-%m-%dT%H:%M:%SZ")
    if not OLDEST <= day <= present.date() + timedelta(days=1):  # a day of grace: the client's zone may be ahead of UTC
        raise RequestError(422, "invalid_value", f"timestamp must lie between {OLDEST} and now", param="timestamp")
    return text


def moment(timestamp: str) -> datetime:
    """An ISO date (its midnight) or time, in UTC. Raises RequestError 422."""
    try:
        if len(timestamp) == 10:
            return datetime.combine(date.fromisoformat(timestamp), time(), UTC)
        when = datetime.fromisoformat(timestamp)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise RequestError(
            422, "invalid_value", "timestamp must be an ISO date or time, like 2026-01-31", param="timestamp"
        ) from error
