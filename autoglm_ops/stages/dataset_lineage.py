"""Where a dataset came from, and what was trained on it: commit <-> data <-> run <-> model."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from autoglm_ops import __version__
from autoglm_ops.contracts.data import SourceManifest
from autoglm_ops.contracts.flow import BuiltDataset, Provenance
from autoglm_ops.data.build.plan import read_plan
from autoglm_ops.errors import UsageError
from autoglm_ops.stages import runs
from autoglm_ops.versioning import git

RECORD = "_built.json"
_USER = re.compile(r"(?<=://)[^/@]*@")


class Trained(NamedTuple):
    """A run whose data holds every part of a dataset; `model` is the tag of the model it promoted, or None."""

    run: str
    model: str | None


def note(folder: Path, work: Path, origin: Path) -> None:
    """Write _built.json of the dataset that the build in `work` published to `folder`; the first one stays."""
    if not (folder / RECORD).exists():
        commit, changed = _commit(origin)
        location = public(read_plan(work).location)
        made = Provenance(commit=commit, changed=changed, version=__version__, location=location, built=time.time())
        made.write(folder / RECORD)


def provenance(folder: Path) -> Provenance | None:
    """Who built the dataset; None for one that came without it. Raises Tampered."""
    return Provenance.read(folder / RECORD) if (folder / RECORD).exists() else None


def public(location: str) -> str:
    """A location without what may be a secret: a URL's user and query."""
    if "://" not in location:
        return location
    return _USER.sub("", re.split(r"[?#]", location, maxsplit=1)[0])


def trained(dataset: BuiltDataset, home: Path, origin: Path) -> list[Trained]:
    """Every run on the dataset: those that were closed from their branches in the checkout, so that a pruned one still counts."""
    wanted = {part.sha256 for part in dataset.parts}
    found = {
        run: Trained(run, model) for run, manifest, model in [*_open(home), *_branches(origin)] if wanted <= _digests(manifest)
    }
    return [found[run] for run in sorted(found)]


def _digests(manifest: SourceManifest) -> set[str]:
    return {file.sha256 for file in manifest.files}


def _open(home: Path) -> Iterator[tuple[str, SourceManifest, str | None]]:
    for info in runs.listed(home):
        root = Path(info.workspace)
        closed = runs.closed(root)
        yield info.run, SourceManifest.read(root / "inputs" / "source.json"), closed.tag if closed else None


def _branches(origin: Path) -> Iterator[tuple[str, SourceManifest, str | None]]:
    try:
        names = git.git(origin, "for-each-ref", "--format=%(refname)", "refs/heads/runs/").split()
    except UsageError:  # no checkout: then there are no branches of runs either
        return
    for name in names:
        if git.git(origin, "ls-tree", "--name-only", name, "--", "inputs/source.json"):
            manifest = SourceManifest.model_validate(json.loads(git.git(origin, "show", f"{name}:inputs/source.json")))
            tags = git.git(origin, "tag", "--points-at", name, "--list", "model/*").split()
            yield name.removeprefix("refs/heads/runs/"), manifest, tags[0] if tags else None


def _commit(origin: Path) -> tuple[str | None, bool]:
    try:
        return git.git(origin, "rev-parse", "--verify", "HEAD"), bool(git.changed_files(origin))
    except UsageError:
        return None, False
