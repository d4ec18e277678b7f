"""How far a dataset has moved from the version before it: the suite's section `drift`, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.feedback import DriftReport
from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.data.build.finish import load
from autoglm_ops.data.build.sample import sample, size
from autoglm_ops.monitoring.drift import drift, ks, profile
from autoglm_ops.stages.dataset_lineage import provenance, public
from autoglm_ops.validation.suite import DriftCheck

MIN_ROWS = 200  # below it on either side the measures are noise (see monitoring.drift), and nothing is said


def before(datasets: Path, location: str, digest: str) -> Path | None:
    """The newest dataset built from `location` that is not `digest`; None when this is the first."""
    found = [
        (origin.built, path)
        for path in datasets.glob("*")
        if path.name.isalnum() and (origin := provenance(path)) and origin.location == public(location) and path.name != digest
    ]
    return max(found)[1] if found else None


def moved(
    checks: Sequence[DriftCheck], previous: Path, dataset: BuiltDataset, columns: Mapping[str, Sequence[Any]]
) -> tuple[DriftReport, ...]:
    """A report per check that can be made: both sides need MIN_ROWS rows, and labels where labels are compared.

    `columns`: those of a sample of `dataset`. The version before it is sampled in the same way.
    """
    old = load(previous)
    files = [previous / part.name for part in old.parts]
    reference = sample(files, old.kept, size(old.kept, old.characters), old.recipe.seed)
    if min(len(reference["text"]), len(columns["text"])) < MIN_ROWS:
        return ()
    profiles = [profile(side["text"], _labels(side)) for side in (reference, columns)]
    lengths = [[len(text) for text in side["text"]] for side in (reference, columns)]
    found: list[DriftReport] = []
    for check in checks:
        if check.kind == "ks":
            found.append(ks(lengths[0], lengths[1], check.threshold, check.alpha))
        else:
            made = drift(profiles[0], profiles[1], check.threshold, check.threshold, MIN_ROWS)
            found += [item for item in made if (item.feature, item.kind) == (check.feature, check.kind)]
    return tuple(found)


def _labels(side: Mapping[str, Sequence[Any]]) -> list[str] | None:
    return None if None in side["label"] else list(side["label"])
