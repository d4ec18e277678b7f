"""`patches.jsonl`: every search-space patch ever made and every undo, one JSON line each, only ever appended to.

An undo is a patch too: the same key with `old` and `new` swapped, and the digest of what it undoes in its evidence.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from pydantic import ValidationError

from autoglm_ops.contracts.feedback import PatchSet, SearchSpacePatch
from autoglm_ops.contracts.record import locked
from autoglm_ops.errors import Tampered, TryAgain, UsageError
from autoglm_ops.feedback.levers import chain_of

log = logging.getLogger(__name__)

UNDO = "undo"


class History:
    """The patch file at `path`. A torn last line (a writer died) was never a patch: it is skipped with a warning, and cut off
    before the next append."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, patches: Iterable[SearchSpacePatch]) -> None:
        """Add patches, on disk when this returns. Raises Tampered when the file is not a history, and leaves it as it is."""
        lines = "".join(_line(patch) for patch in patches).encode()
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            whole = self._whole()
            _parse(whole, self.path)
            if lines:
                self._add(lines, len(whole))

    def read(self) -> tuple[SearchSpacePatch, ...]:
        """All patches, oldest first. Raises Tampered naming the first line that is not one."""
        return _parse(self._whole(), self.path)

    def active(self, today: date) -> PatchSet:
        """The patches in force on `today`, oldest first."""
        return in_force(self.read(), today)

    def undo(self, count: int, today: date) -> tuple[SearchSpacePatch, ...]:
        """Undo the last `count` patches in force that are not undone yet, newest first; returns the lines added.

        Raises UsageError when there are fewer.
        """
        active = self.active(today).patches
        gone = {str(patch.evidence["undoes"]) for patch in active if patch.signal == UNDO}
        standing = [patch for patch in active if patch.signal != UNDO and patch.fingerprint() not in gone]
        if not 1 <= count <= len(standing):
            raise UsageError(f"undo {count}: {len(standing)} patches are in force on {today}; give a number from 1 to that")
        undone = tuple(_reverse(patch, today) for patch in reversed(standing[-count:]))
        self.append(undone)
        return undone

    def _whole(self) -> bytes:
        """The file up to its last line end."""
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            log.warning(
                "%s ends in a torn line of %d bytes, which was never a patch; ignored",
                self.path.name,
                len(content) - len(whole),
            )
        return whole

    def _add(self, lines: bytes, at: int) -> None:
        """Write `lines` at offset `at`, cutting off what a dead writer left behind it."""
        with self.path.open("ab", buffering=0) as file:
            file.truncate(at)
            rest = memoryview(lines)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError as error:
                file.truncate(at)  # all of them or none: half a batch is no decision
                raise TryAgain(f"{self.path} could not be written: {error.strerror}; free space, then try again") from error


def in_force(patches: Sequence[SearchSpacePatch], today: date) -> PatchSet:
    """Of `patches`, oldest first, those in force on `today`.

    Patches of one chain build on one another, so they live and die together: with the newest of them.
    """
    alive: dict[tuple[str, str], list[SearchSpacePatch]] = {}
    for patch in patches:
        chain = alive.setdefault(chain_of(patch), [])
        if chain and date.fromisoformat(chain[-1].expires) < date.fromisoformat(patch.created):
            chain.clear()  # the key had gone back to params.yaml before this patch was made
        chain.append(patch)
    lasting = [chain for chain in alive.values() if date.fromisoformat(chain[-1].expires) >= today]
    kept = {patch.fingerprint() for chain in lasting for patch in chain}
    return PatchSet(patches=tuple(patch for patch in patches if patch.fingerprint() in kept))


def _line(patch: SearchSpacePatch) -> str:
    return json.dumps(patch.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _parse(content: bytes, path: Path) -> tuple[SearchSpacePatch, ...]:
    patches = []
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            patches.append(SearchSpacePatch.model_validate_json(line))
        except ValidationError as error:
            raise Tampered(
                f"{path}:{number} is not a patch ({error.errors()[0]['msg']}); restore the file or move it away"
            ) from error
    return tuple(patches)


def _reverse(patch: SearchSpacePatch, today: date) -> SearchSpacePatch:
    changes = {
        "old": patch.new,
        "new": patch.old,
        "signal": UNDO,
        "reason": f"undone: {patch.reason}",
        "created": today.isoformat(),
    }
    kept = {"base": patch.evidence["base"]} if "base" in patch.evidence else {}  # which chain it belongs to
    return patch.model_copy(update=changes | {"evidence": {"undoes": patch.fingerprint(), **kept}})
