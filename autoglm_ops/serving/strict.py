"""Request bodies as the JSON standard has them."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from autoglm_ops import strict
from autoglm_ops.serving.faults import RequestError

CODES = {"blank": "bad_json", "number-too-long": "bad_number"}
Model = TypeVar("Model", bound=BaseModel)


def read(raw: bytes, model: type[Model]) -> Model:
    """The body as a `model`. Raises RequestError: 400 when it is not JSON, 422 when it is not the model, naming the place."""
    value = parse(raw)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise fault_of(error) from error


def fault_of(error: ValidationError) -> RequestError:
    """The first thing that is wrong, by name. What the client sent is not repeated."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"])) or None
    return RequestError(422, "invalid_value", f"{where or 'the body'}: {first['msg']}", param=where)


def parse(raw: bytes) -> Any:
    """The JSON value in `raw`. Raises RequestError 400."""
    if not raw:
        raise RequestError(400, "empty_body", "the body is empty; send a JSON object")
    try:
        value = strict.parse(raw)
        if b"\\u" in raw:  # only an escape can smuggle in half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except strict.NotStrictError as error:
        raise RequestError(400, CODES.get(error.word, error.word.replace("-", "_")), f"the body: {error}") from error
    except UnicodeEncodeError as error:
        raise RequestError(
            400, "lone_surrogate", "a string holds half of a surrogate pair; escape the whole character"
        ) from error
    return value
