"""Dataset versions to and from the artefact store (store.uri). The store notes under which folder it keeps a dataset's digest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from autoglm_ops.contracts.cluster import Store
from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.contracts.record import locked
from autoglm_ops.data.build.finish import verified
from autoglm_ops.errors import Refused, Tampered, TryAgain
from autoglm_ops.settings import Settings
from autoglm_ops.stages.dataset import datasets
from autoglm_ops.store import open_store
from autoglm_ops.store.listing import check_digest


def push(settings: Settings, folder: Path, home: Path) -> BuiltDataset:
    """Store the dataset in `folder`, once. Raises Tampered when it is not what its name says, TryAgain when the store is away."""
    dataset = verified(folder, folder.name)
    store = _store(settings, home)
    if not is_stored(store, dataset.digest):
        kept = store.note(_name(dataset.digest), store.put(folder))
        if not store.has(kept):
            raise Tampered(
                f"the store notes dataset {dataset.digest} as artefact {kept}, which it does not hold; remove the note"
            )
    return dataset


def pull(settings: Settings, digest: str, home: Path) -> BuiltDataset:
    """Lay dataset `digest` down in `home/datasets`, every file checked; one that is there and whole stays as it is.

    Raises Refused when the store does not know it, Tampered when what it holds, or what is here, is another one.
    """
    target = datasets(home) / check_digest(digest)
    if target.exists():
        return verified(target, digest)
    store = _store(settings, home)
    kept = store.noted(_name(digest))
    if kept is None:
        raise Refused(
            f"the store knows no dataset {digest}; `autoglm data push` it where it was built, or name its store (store.uri)"
        )
    try:
        with locked(target.with_name(".pulling")):
            return _lay_down(store, kept, target)
    except OSError as error:
        raise TryAgain(f"{target} could not be written: {error.strerror or error}; free space, try again") from error


def _lay_down(store: Store, kept: str, target: Path) -> BuiltDataset:
    """Under the lock nobody else is pulling: what is there under the passing name was left by one that was killed."""
    if target.exists():
        return verified(target, target.name)
    part = target.with_name(f"{target.name}.pulled")
    shutil.rmtree(part, ignore_errors=True)
    try:
        dataset = verified(store.get(kept, part), target.name)
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return dataset


def stored(settings: Settings, home: Path, digests: list[str]) -> set[str]:
    """Which of the datasets the store holds. One request each."""
    store = _store(settings, home)
    return {digest for digest in digests if is_stored(store, digest)}


def is_stored(store: Store, digest: str) -> bool:
    """Whether the store notes the dataset, and holds what it notes."""
    kept = store.noted(_name(digest))
    return kept is not None and store.has(kept)


def _store(settings: Settings, home: Path) -> Store:
    return open_store(settings.store.uri, home)


def _name(digest: str) -> str:
    return f"datasets/{digest}"
