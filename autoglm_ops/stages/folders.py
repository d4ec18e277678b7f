"""Folders outside the workspace that settings name, a tokenizer or a model: digested by the snapshot, checked where they are used.

So a folder that changed in place is new input for DVC and for the run key, and no stage reads other bytes than the run was opened with.
"""

from __future__ import annotations

from pathlib import Path

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.inputs import Folders
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.errors import Tampered
from autoglm_ops.settings import Settings
from autoglm_ops.stages.base import Context
from autoglm_ops.training.models import BUILTIN, ModelSpec


def look(settings: Settings, origin: Path) -> Folders:
    """The digests of what is there now. A name that is no folder is left to the stage that needs it, which says what is wrong."""
    tokenizer = settings.tokenize.tokenizer
    model = None if settings.model.name in BUILTIN.names() else settings.model.name
    return Folders(tokenizer=_digest(tokenizer, origin), model=_digest(model, origin))


def tokenizer(context: Context) -> Path | None:
    """The folder of `tokenize.tokenizer`, None when one is to be trained. Raises Tampered when it changed since the snapshot."""
    named = context.settings.tokenize.tokenizer
    if named is None:
        return None
    _check("tokenize.tokenizer", context.origin / Path(named).expanduser(), Folders.read(context.input("folders")).tokenizer)
    return context.origin / Path(named).expanduser()


def model(context: Context, settings: Settings, meta: TokenMeta) -> ModelSpec:
    """The model that `settings` names. Raises UsageError on an unknown one, Tampered when its folder changed since the snapshot."""
    spec = ModelSpec.of(settings.model.model_dump(), meta, context.origin)
    if spec.folder is not None:
        _check("model.name", Path(spec.folder), Folders.read(context.input("folders")).model)
    return spec


def _digest(named: str | None, origin: Path) -> str | None:
    folder = origin / Path(named).expanduser() if named else None
    return digest_path(folder) if folder is not None and folder.is_dir() else None


def _check(key: str, folder: Path, recorded: str | None) -> None:
    if folder.is_dir() and digest_path(folder) != recorded:
        raise Tampered(
            f"the folder of {key}, {folder.name}, has changed since inputs/folders.json was written; "
            "run `autoglm snapshot` to start from it as it is now"
        )
