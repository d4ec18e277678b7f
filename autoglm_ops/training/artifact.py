"""Model folders: published whole or not at all, and opened only when every byte is the one that was published.

A folder holds safetensors, JSON and text; nothing in it can run. `manifest.json` lists every other file by sha256, and a file
that is not listed is as wrong as one that differs (threats F11 to F16).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np

from autoglm_ops.contracts.record import digest_path, digest_tree, sync, write_text
from autoglm_ops.contracts.training import CheckpointManifest
from autoglm_ops.errors import Tampered
from autoglm_ops.training.tensors import finite, read_header

MANIFEST = "manifest.json"
SUFFIXES = frozenset({".safetensors", ".json", ".txt"})
MAX_FILES = 1000


def publish(staged: Path, target: Path, *, architecture: str, labels: tuple[str, ...], max_length: int) -> CheckpointManifest:
    """Turn the finished folder `staged` into `target`: fsync, manifest, fsync, rename. Both lie on one disk.

    A crash leaves the old target or the new one. Raises Tampered when `staged` holds what no model folder may.
    """
    for path in _files(staged):
        _allowed(path, staged)
        sync(path)
    files = digest_tree(staged, skip=(MANIFEST,))
    manifest = CheckpointManifest(files=files, architecture=architecture, labels=labels, max_length=max_length)
    write_text(staged / MANIFEST, manifest.to_json())
    for folder in sorted({path.parent for path in _files(staged)} | {staged}):
        sync(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(staged, target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True)
    return manifest


def verify(folder: Path, digest: str | None = None) -> CheckpointManifest:
    """Check a model folder file by file. `digest` is `digest_path(folder)` as it was registered; None asks the manifest alone.

    Raises Tampered on a missing, altered or extra file, a kind of file that can run, a link, or weights that are not finite.
    """
    manifest = read_manifest(folder)
    found: dict[str, str] = {}
    for path in _files(folder):
        _allowed(path, folder)
        if path.relative_to(folder).as_posix() != MANIFEST:
            found[path.relative_to(folder).as_posix()] = digest_path(path)
    compare(folder, manifest, found)
    if digest is not None and digest_path(folder) != digest:
        raise Tampered(
            f"{folder} has digest {digest_path(folder)} but {digest} was registered; fetch the registered model again"
        )
    for path in sorted(folder.rglob("*.safetensors")):
        check_weights(path.name, path.read_bytes())
    return manifest


def read_manifest(folder: Path) -> CheckpointManifest:
    """The manifest. Raises Tampered when there is none."""
    if not (folder / MANIFEST).is_file():
        raise Tampered(
            f"{folder} has no {MANIFEST}: it is no published model, or was cut off while it was copied; fetch it again"
        )
    return CheckpointManifest.read(folder / MANIFEST)


def compare(folder: Path, manifest: CheckpointManifest, found: dict[str, str]) -> None:
    """Raise Tampered naming the first file whose digest is not the manifest's."""
    for name in sorted(found.keys() | manifest.files.keys()):
        if found.get(name) != manifest.files.get(name):
            what = (
                "is missing" if name not in found else "is not in the manifest" if name not in manifest.files else "was changed"
            )
            raise Tampered(f"{folder}/{name} {what} since the model was published; fetch or train the model again")


def check_weights(name: str, content: bytes) -> None:
    """Raise Tampered when `content` is not well-formed safetensors, or holds NaN or infinities (the format allows both)."""
    for tensor, dtype, start, end in read_header(name, content):
        if not finite(np.frombuffer(content, np.uint8, end - start, start), dtype):
            raise Tampered(f"{name}: tensor {tensor!r} holds NaN or infinite values; train the model again")


def _files(folder: Path) -> list[Path]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir()]
    if len(paths) > MAX_FILES:
        raise Tampered(f"{folder} holds {len(paths)} files; a model folder has at most {MAX_FILES}")
    return paths


def _allowed(path: Path, folder: Path) -> None:
    name = path.relative_to(folder).as_posix()
    if path.is_symlink() or not path.is_file():
        raise Tampered(f"{folder}/{name} is a link or a special file; a model folder holds plain files")
    if path.suffix not in SUFFIXES or name.startswith("."):
        raise Tampered(
            f"{folder}/{name}: a model folder holds only {', '.join(sorted(SUFFIXES))}; anything else could run when loaded"
        )
