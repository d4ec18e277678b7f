"""Request bodies as the JSON standard has them. `json.loads` also takes NaN, 1e999, a key twice, UTF-16 and lone surrogates (facts)."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from autoglm_ops.serving.faults import RequestError

MAX_DEPTH = 64
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
        text = raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float)
        if "\\u" in text:  # only an escape can smuggle in half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise RequestError(400, "bad_utf8", f"the body is not UTF-8 at byte {error.start}") from error
    except UnicodeEncodeError as error:
        raise RequestError(
            400, "lone_surrogate", "a string holds half of a surrogate pair; escape the whole character"
        ) from error
    except json.JSONDecodeError as error:
        raise RequestError(
            400, "bad_json", f"the body is not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:
        raise RequestError(400, "too_deep", f"the body is nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:  # an integer of thousands of digits: Python refuses to read it
        raise RequestError(400, "bad_number", "a number in the body has too many digits") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise RequestError(400, "too_deep", f"the body is nested deeper than {MAX_DEPTH}")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise RequestError(400, "duplicate_key", "a key stands twice in one object; which one counts is anyone's guess")
    return mapping


def _constant(name: str) -> NoReturn:
    raise RequestError(400, "not_a_number", f"{name} is not JSON; numbers are finite")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RequestError(400, "not_a_number", f"{text[:20]} is beyond what a number can hold")
    return value


def _depth(value: Any) -> int:
    """How deep lists and objects nest, level by level."""
    depth, level = 0, [value]
    while level := [node for node in level if isinstance(node, dict | list)]:
        level = [child for node in level for child in (node.values() if isinstance(node, dict) else node)]
        depth += 1
    return depth
