"""Expectation suites as data: what expectations/*.yaml says, checked and filled with settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from autoglm_ops.errors import SettingsError


class Check(BaseModel):
    """One expectation by its Great Expectations name, with its arguments."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str

    @property
    def column(self) -> str | None:
        column = self.arguments.get("column")
        return str(column) if column is not None else None

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(self.model_extra or {})

    @property
    def over_table(self) -> bool:
        """Whether it judges the table as a whole."""
        return self.type.startswith("expect_table_")


class Suite(BaseModel):
    """raw: on all rows. accepted: on the rows that were not quarantined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    raw: tuple[Check, ...]
    accepted: tuple[Check, ...]


def parse(tree: Any, settings: Mapping[str, Any], where: str) -> Suite:
    """The suite in a parsed YAML tree. Raises SettingsError naming the entry in `where`."""
    try:
        suite = Suite.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(
            f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}; each entry is {{type: expect_…, …}}"
        ) from error
    return Suite(raw=_filled(suite.raw, settings, where), accepted=_filled(suite.accepted, settings, where))


def _filled(checks: tuple[Check, ...], settings: Mapping[str, Any], where: str) -> tuple[Check, ...]:
    filled = ({name: _value(value, settings, where) for name, value in check.model_dump().items()} for check in checks)
    # A setting that is null asks for nothing: data.labels = null allows every label.
    return tuple(
        Check(**after)
        for check, after in zip(checks, filled, strict=True)
        if all(after[name] is not None for name in check.model_dump())
    )


def _value(value: Any, settings: Mapping[str, Any], where: str) -> Any:
    if not (isinstance(value, dict) and set(value) == {"setting"}):
        return value
    if value["setting"] not in settings:
        raise SettingsError(f"{where}: no setting {value['setting']!r}; known: {', '.join(sorted(settings))}")
    filled = settings[value["setting"]]
    return list(filled) if isinstance(filled, tuple) else filled
