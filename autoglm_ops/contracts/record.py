"""The base of every record, and the two records every stage leaves behind."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from autoglm_ops.errors import Tampered


class Record(BaseModel):
    """Frozen, closed to unknown keys, and the same bytes for the same content wherever it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, two spaces, a final newline."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=2, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write whole or not at all: a neighbour file, fsync, rename."""
        write_text(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check. A torn or altered file is refused by name and never half-understood."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise Tampered(
                f"{path} is not a {cls.__name__}: {where}: {first['msg']}; delete it and run its stage again"
            ) from error

    def fingerprint(self) -> str:
        """sha256 of the canonical JSON. (Not called digest: several records have a field of that name.)"""
        return digest_of(self.model_dump(mode="json"))


class StageRecord(Record):
    """`out/<stage>/record.json`: what a stage made of what. Deterministic, so DVC may cache it.

    `inputs` and `outputs` map workspace-relative paths to sha256 digests (a folder's digest is over its files' names and digests).
    """

    stage: str
    verdict: Literal["done", "refused"] = "done"
    reasons: tuple[str, ...] = ()
    inputs: dict[str, str]
    outputs: dict[str, str]
    facts: dict[str, Any] = {}


class Completion(Record):
    """`completed/<stage>.json`: that a stage ran here. Outside DVC: it holds times and a run id."""

    stage: str
    run: str
    attempt: int
    started: float
    seconds: float
    cached: bool
    exit: int
    reasons: tuple[str, ...] = ()
    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}
    facts: dict[str, Any] = {}
    measured: dict[str, Any] = {}


def write_text(path: Path, text: str) -> None:
    """Atomic replacement of a small text file: staged beside it, fsynced, renamed, folder fsynced."""
    import os

    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with staged.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """fsync what lies at `path`: a file's bytes, or that a rename in a folder survives a power cut."""
    import os

    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path` (made when missing) alone among the processes of this machine, waiting for it. A holder's death frees it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest_of(value: Any) -> str:
    """sha256 of `value` as canonical JSON. NaN and infinities are refused, since they have no canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_path(path: Path) -> str:
    """sha256 of a file, or of a folder as `sha256(name TAB sha256 NL …)` over its files in sorted order."""
    if path.is_dir():
        return hashlib.sha256(tree_text(digest_tree(path)).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_text(tree: dict[str, str]) -> str:
    """The text whose sha256 is a folder's digest: `name TAB sha256 NL` for each file, in the order of `digest_tree`."""
    return "".join(f"{name}\t{value}\n" for name, value in tree.items())


def digest_tree(folder: Path, skip: tuple[str, ...] = ()) -> dict[str, str]:
    """Relative POSIX path -> sha256 for every file below `folder`, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {name: digest_path(path) for path in files if (name := path.relative_to(folder).as_posix()) not in skip}
