"""Phase 0: what there is to read, cut into shards, and a work folder that the same build finds again."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from autoglm_ops.contracts.flow import BuildPlan, PlannedPart, Recipe
from autoglm_ops.contracts.record import digest_of
from autoglm_ops.data.flow import Step
from autoglm_ops.data.neardup.options import Options
from autoglm_ops.data.readers import Blob, Limits, Part, Shard, survey
from autoglm_ops.data.readers import plan as cut
from autoglm_ops.data.readers.names import is_hidden, kind_of
from autoglm_ops.data.readers.places import locate
from autoglm_ops.data.rows import Shape
from autoglm_ops.data.steps.catalog import STEPS
from autoglm_ops.data.steps.contamination import Contamination, Protected
from autoglm_ops.errors import SettingsError

PROTECTED = "protected.npz"
CORPUS_STEPS = {"source-cap": "flow.source_cap", "mix": "flow.mix", "contamination": "flow.protect"}


def plan(location: str, recipe: Recipe, scratch: Path, limits: Limits, protected: Protected | None = None) -> Path:
    """The work folder of this build below `scratch`, with its plan.json. Everything a person can have got wrong is said here.

    No document of it may share n-grams with `protected`.

    Raises SettingsError for a step or an option that does not exist, and what `survey` raises for the location.
    """
    recipe = recipe.model_copy(update={"protected": protected.digest() if protected else None})
    steps(recipe)
    options(recipe)
    place = survey(location, limits)
    shards = cut(place.blobs, recipe.shard_bytes, cut=is_cuttable(location, recipe))
    parts = tuple(tuple(_planned(part) for part in shard.parts) for shard in shards)
    made = BuildPlan(location=location, recipe=recipe, shards=parts, ignored=place.ignored)
    work = scratch / f"build-{made.fingerprint()[:16]}"
    if not (work / "plan.json").exists():
        work.mkdir(parents=True, exist_ok=True)
        if protected:
            protected.save(work / PROTECTED)
        made.write(work / "plan.json")
    return work


def listing(location: str, limits: Limits) -> str:
    """A digest of the files' names, sizes and, in a bucket, ETags: what shows new data without reading any.

    Empty when there is nothing. A local file that was rewritten at the same size is not seen; `plan` reads it and sees.
    """
    blobs = sorted(blob for blob in locate(location, limits).blobs() if kind_of(blob.name) and not is_hidden(blob.name))
    return digest_of([list(blob) for blob in blobs]) if blobs else ""


def is_cuttable(location: str, recipe: Recipe) -> bool:
    """Whether a big plain file may be read in ranges: not when it is one document, and HTTP servers need not know ranges."""
    return recipe.document == "line" and not location.lower().startswith(("http:", "https:"))


def read_plan(work: Path) -> BuildPlan:
    """The plan of a work folder. Raises Tampered when it is torn."""
    return BuildPlan.read(work / "plan.json")


def shard_of(made: BuildPlan, number: int) -> Shard:
    """Shard `number` as the readers take it."""
    parts = (Part(Blob(part.name, part.size, part.version), part.start, part.stop) for part in made.shards[number])
    return Shard(number, tuple(parts))


def shape_of(recipe: Recipe) -> Shape:
    """How the location's records become documents."""
    return Shape(recipe.columns, date.fromisoformat(recipe.epoch))


def steps(recipe: Recipe) -> list[Step]:
    """The recipe's steps, made. Raises SettingsError that names the step and its option."""
    made: list[Step] = []
    for spec in recipe.steps:
        if spec.name in CORPUS_STEPS:
            raise SettingsError(f"flow.steps: {spec.name} looks at the whole corpus; set {CORPUS_STEPS[spec.name]} instead")
        try:
            made.append(STEPS.get(spec.name)(**spec.options))
        except (TypeError, ValueError) as error:
            raise SettingsError(f"flow.steps: {spec.name} refuses {spec.options}: {error}; correct its options") from error
    return made


def guards(work: Path, recipe: Recipe) -> list[Step]:
    """What keeps protected texts out. Raises Tampered when the build's list of them is not the planned one."""
    return [Contamination(Protected.load(work / PROTECTED, recipe.protected))] if recipe.protected else []


def options(recipe: Recipe) -> Options | None:
    """How near-duplicates are found; None when they may stay. Raises SettingsError for an unknown option."""
    if recipe.dedup is None:
        return None
    try:
        return Options(**recipe.dedup)
    except TypeError as error:
        raise SettingsError(f"flow.dedup: {error}; the options are threshold, ngram, bands, rows, seed, memory") from error


def _planned(part: Part) -> PlannedPart:
    blob = part.blob
    return PlannedPart(name=blob.name, size=blob.size, version=blob.version, start=part.start, stop=part.stop)


def key_of(parts: dict[str, str]) -> str:
    """The digest of a dataset: over its parts' names and digests."""
    return digest_of(parts)
