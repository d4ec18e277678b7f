"""Records of the data engine: what a build was asked, how it was cut, and what came out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from autoglm_ops.contracts.data import Expectation
from autoglm_ops.contracts.feedback import DriftReport
from autoglm_ops.contracts.record import Record


class StepSpec(Record):
    """One step by its name in the catalog, with the options that differ from its defaults."""

    name: str
    options: dict[str, Any] = {}


class Recipe(Record):
    """Everything that decides what comes out, but the data. No path of the machine.

    `protected`: the digest of the n-grams that no document may share (the build's `protected.npz`), None when nothing is protected.
    """

    columns: dict[str, str]
    epoch: str
    document: Literal["line", "file"] = "line"
    steps: tuple[StepSpec, ...] = ()
    dedup: dict[str, Any] | None = {}
    source_cap: int | None = Field(default=None, ge=1)
    mix: dict[str, float] = {}
    protected: str | None = None
    seed: int = 0
    shard_bytes: int = Field(default=256 << 20, ge=1)


class PlannedPart(Record):
    """Bytes [start, stop) of one file, as it was listed."""

    name: str
    size: int
    version: str
    start: int
    stop: int


class BuildPlan(Record):
    """`plan.json` of a build's work folder: the same location, files and recipe make the same plan, so a killed build finds its work."""

    location: str
    recipe: Recipe
    shards: tuple[tuple[PlannedPart, ...], ...]
    ignored: int


class Counts(Record):
    """What one task did with its documents: seen = kept + dropped + quarantined."""

    seen: int
    kept: int
    dropped: dict[str, int] = {}
    quarantined: dict[str, int] = {}
    masked: dict[str, int] = {}
    sources: dict[str, int] = {}
    characters: int = 0


class DatasetPart(Record):
    """One Parquet file of a dataset, named after its content."""

    name: str
    sha256: str
    rows: int
    size: int


class BuiltDataset(Record):
    """`_dataset.json`: a built dataset. `digest` is over its parts: the same data is the same version, wherever it was read from.

    seen = the parts' rows + the sum of `dropped` + the sum of `quarantined`.
    """

    digest: str
    recipe: Recipe
    files: int
    bytes: int
    seen: int
    kept: int
    characters: int
    dropped: dict[str, int]
    quarantined: dict[str, int]
    masked: dict[str, int]
    sources: dict[str, int]
    parts: tuple[DatasetPart, ...]


class PackedDataset(Record):
    """`_packed.json`: a dataset as sequences of `length` tokens. `tokenizer` is the digest of its tokenizer.json, `digest` is over the
    files; the rows hold `tokens` tokens, the rest of rows x length is padding.
    """

    digest: str
    dataset: str
    tokenizer: str
    length: int
    end: str | None
    documents: int
    rows: int
    tokens: int
    files: tuple[DatasetPart, ...]


class Provenance(Record):
    """`_built.json`: who built a dataset first here. Beside its record and not in it: the same data is the same version.

    `commit` is the checkout's (None outside git), `changed` whether tracked files differed from it, `built` seconds since 1970.
    """

    commit: str | None
    changed: bool
    version: str
    location: str
    built: float


class SuiteReport(Record):
    """`_validation.json` of a built dataset: what a suite of expectations saw in `looked` of its `rows` documents.

    A fault that none of them has is, at 95 % confidence, in less than the share `unseen` of all documents; 0 when all were looked at.
    `asked` is the digest of the expectations with their settings filled in. `drift` is that from dataset `against`, the version built
    from the same place before, or None where there is none.
    """

    verdict: Literal["accepted", "refused"]
    dataset: str
    suite: str
    asked: str
    rows: int
    looked: int
    unseen: float
    expectations: tuple[Expectation, ...]
    reasons: tuple[str, ...] = ()
    against: str | None = None
    drift: tuple[DriftReport, ...] = ()


class LocationProfile(Record):
    """What a location holds. `lengths` are quantiles in characters; `languages` and `personal` are of the `sample` alone."""

    files: int
    ignored: int
    bytes: int
    rows: int
    rejected: dict[str, int]
    lengths: dict[str, int]
    repeated: int
    empty: int
    sample: int
    languages: dict[str, int]
    personal: dict[str, int]
    labels: dict[str, int]
    sources: dict[str, int]
    days: tuple[str | None, str | None]
