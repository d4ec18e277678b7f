"""A dataset version in the checkout, under DVC: git keeps which one it is, `dvc push`, `pull` and `checkout` move its bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from autoglm_ops.contracts.record import locked
from autoglm_ops.data.build.finish import load, verified
from autoglm_ops.errors import TryAgain, UsageError

WHERE = Path("inputs") / "datasets"
_BUILT = "_built.json"  # when and where it was built: the same data is the same version without it


def track(folder: Path, name: str, origin: Path) -> Path:
    """Lay the dataset in `folder` down as `origin/inputs/datasets/<name>`, in place of the version there, and `dvc add` it.

    Returns the `.dvc` file, which is to be committed. Raises UsageError for a bad name or a folder of that name that is no dataset,
    Tampered when the dataset is not what its record says, TryAgain when it cannot be written.
    """
    from autoglm_ops.versioning import dvc

    if not name.replace("-", "").replace("_", "").isalnum():
        raise UsageError(f"{name!r} cannot name a dataset: use letters, digits, - and _, as in corpus or reviews-2026")
    verified(folder, load(folder).digest)
    target = origin / WHERE / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(origin / ".dvc" / "tmp" / "tracking"):  # not beside the dataset: git would see it
            _replace(folder, target)
            return dvc.add(origin, target)
    except OSError as error:
        raise TryAgain(f"{target} could not be written: {error.strerror or error}; free space, try again") from error


def _replace(folder: Path, target: Path) -> None:
    """Files are linked where the file system can, so that a version costs its bytes once more, in DVC's cache, not twice."""
    if target.exists():
        if not (target / "_dataset.json").exists():
            raise UsageError(f"{target} is there and is no dataset; move it away, or give another --name")
        if target.resolve() == folder.resolve():
            return
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(folder, part, copy_function=_link, ignore=shutil.ignore_patterns(_BUILT))
    if target.exists():
        shutil.rmtree(target)
    os.replace(part, target)


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
    return target
