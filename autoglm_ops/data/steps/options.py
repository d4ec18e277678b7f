"""The decorator of a step that is built from settings: a frozen dataclass whose values are checked against their types."""

from __future__ import annotations

from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def options(cls: type[T]) -> type[T]:
    """`cls` as a frozen dataclass. A field that does not exist, a value of the wrong type, NaN and infinity raise pydantic's
    ValidationError (a ValueError), which names the field. Lists become tuples, as YAML has no others."""
    made: type[Any] = dataclass(frozen=True, config=ConfigDict(allow_inf_nan=False, extra="forbid"))(cls)
    return made
