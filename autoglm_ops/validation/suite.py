"""Expectation suites as data: what expectations/*.yaml says, checked and filled with settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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

    @property
    def over_count(self) -> bool:
        """Whether it judges how many rows there are."""
        return self.type.startswith("expect_table_row_count_")


class Suite(BaseModel):
    """raw: on all rows. accepted: on the rows that were not quarantined."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    raw: tuple[Check, ...]
    accepted: tuple[Check, ...]


class DriftCheck(BaseModel):
    """How far a dataset may be from the version before it. One that is `refuse` keeps the dataset out; the others are noted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    feature: Literal["length", "characters", "labels"]
    kind: Literal["psi", "kl", "ks"]
    threshold: float = Field(gt=0)
    alpha: float = Field(default=0.001, gt=0, lt=1)
    refuse: bool = False

    @model_validator(mode="after")
    def _measurable(self) -> DriftCheck:
        if (self.feature, self.kind) not in MEASURED:
            known = ", ".join(f"{kind} of {feature}" for feature, kind in MEASURED)
            raise ValueError(f"{self.kind} of {self.feature} is not measured; there are {known}")
        return self


MEASURED = (("length", "psi"), ("length", "ks"), ("characters", "kl"), ("labels", "psi"))


class DocumentSuite(BaseModel):
    """documents: on those of a built dataset, or on a sample of them. drift: against the version built from the same place before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    documents: tuple[Check, ...] = Field(min_length=1)
    drift: tuple[DriftCheck, ...] = ()


Model = TypeVar("Model", Suite, DocumentSuite)


def parse(tree: Any, settings: Mapping[str, Any], where: str) -> Suite:
    """The suite in a parsed YAML tree. Raises SettingsError naming the entry in `where`."""
    suite = _valid(Suite, tree, where)
    return Suite(raw=_filled(suite.raw, settings, where), accepted=_filled(suite.accepted, settings, where))


def parse_documents(tree: Any, settings: Mapping[str, Any], where: str) -> DocumentSuite:
    """A suite for built datasets. Raises SettingsError naming the entry in `where`."""
    if isinstance(tree, dict) and isinstance(tree.get("drift"), list):
        tree = {**tree, "drift": [_entry(item, settings, where) for item in tree["drift"]]}
    suite = _valid(DocumentSuite, tree, where)
    return suite.model_copy(update={"documents": _filled(suite.documents, settings, where)})


def _valid(model: type[Model], tree: Any, where: str) -> Model:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(
            f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}; an entry is {{type: expect_…, …}}, of drift {{feature, kind, threshold}}"
        ) from error


def _filled(checks: tuple[Check, ...], settings: Mapping[str, Any], where: str) -> tuple[Check, ...]:
    filled = ({name: _value(value, settings, where) for name, value in check.model_dump().items()} for check in checks)
    # A setting that is null asks for nothing: data.labels = null allows every label.
    return tuple(
        Check(**after)
        for check, after in zip(checks, filled, strict=True)
        if all(after[name] is not None for name in check.model_dump())
    )


def _entry(item: Any, settings: Mapping[str, Any], where: str) -> Any:
    return {name: _value(value, settings, where) for name, value in item.items()} if isinstance(item, dict) else item


def _value(value: Any, settings: Mapping[str, Any], where: str) -> Any:
    if not (isinstance(value, dict) and set(value) == {"setting"}):
        return value
    if value["setting"] not in settings:
        raise SettingsError(f"{where}: no setting {value['setting']!r}; known: {', '.join(sorted(settings))}")
    filled = settings[value["setting"]]
    return list(filled) if isinstance(filled, tuple) else filled
