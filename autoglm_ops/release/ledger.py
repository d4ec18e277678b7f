"""Who was champion when, and why: `ledger.jsonl`, one Promotion a line, each holding the sha256 of the line before it.

Beside it lie `.head` (how many lines there are and the sha256 of the last: so that a changed or missing last line shows too) and
`.intent` (the move under way: written before the alias moves, so that a crash between the alias and the line is told apart from a
hand that moved the alias).
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path

from autoglm_ops.contracts.record import Record, locked
from autoglm_ops.contracts.release import Promotion
from autoglm_ops.errors import Tampered, TryAgain

GENESIS = "0" * 64


class Head(Record):
    """`ledger.head`: how long the ledger was when it was last written."""

    lines: int
    sha256: str


class Ledger:
    """Readers need no lock; whoever appends holds it from the first look to the last write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head = path.with_suffix(".head")
        self._intent = path.with_suffix(".intent")

    def hold(self) -> AbstractContextManager[None]:
        """The ledger's lock: one mover at a time on this machine."""
        return locked(self.path.with_suffix(".lock"))

    def lines(self) -> list[Promotion]:
        """Every line, the chain checked. Raises Tampered naming the first line that is not what it was."""
        raw, _ = self._raw()
        promotions = []
        previous = GENESIS
        for number, line in enumerate(raw, start=1):
            promotion = self._parse(line, number)
            if promotion.previous != previous:
                culprit = f"line {number - 1} was changed or removed" if number > 1 else "line 1 does not begin the chain"
                raise Tampered(
                    f"{self.path}: {culprit}: line {number} expects another sha256 before it; restore it from a backup"
                )
            previous = _sha256(line)
            promotions.append(promotion)
        self._check_head(raw)
        return promotions

    def append(self, promotion: Promotion) -> Promotion:
        """Add a line (its `previous` is filled in) and settle the intent. Call it under `hold()`.

        Raises TryAgain when the disk refuses; the ledger is then as it was.
        """
        self.lines()
        raw, whole = self._raw()
        promotion = promotion.model_copy(update={"previous": _sha256(raw[-1]) if raw else GENESIS})
        line = json.dumps(promotion.model_dump(mode="json"), sort_keys=True, ensure_ascii=False).encode()
        try:
            self._write(line + b"\n", whole)
            Head(lines=len(raw) + 1, sha256=_sha256(line)).write(self._head)
        except OSError as error:
            raise TryAgain(f"{self.path} could not be written: {error.strerror or error}; free space and try again") from error
        self.drop_intent()
        return promotion

    def intend(self, promotion: Promotion) -> None:
        """Say which move is about to be made, before the alias moves."""
        try:
            promotion.write(self._intent)
        except OSError as error:
            raise TryAgain(
                f"{self._intent} could not be written: {error.strerror or error}; free space and try again"
            ) from error

    def intent(self) -> Promotion | None:
        """The move a crash left half-done."""
        return Promotion.read(self._intent) if self._intent.exists() else None

    def drop_intent(self) -> None:
        self._intent.unlink(missing_ok=True)

    def _raw(self) -> tuple[list[bytes], int]:
        """Whole lines, and how many bytes they take. A torn last line was never acknowledged and does not count."""
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data.rfind(b"\n") + 1
        return data[:whole].split(b"\n")[:-1], whole

    def _write(self, line: bytes, whole: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            file.truncate(whole)
            try:
                if file.write(line) != len(line):
                    raise OSError("the disk took only a part of the line")
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)
                raise

    def _parse(self, line: bytes, number: int) -> Promotion:
        try:
            return Promotion.model_validate_json(line)
        except ValueError as error:
            raise Tampered(f"{self.path}: line {number} is not a ledger line; restore it from a backup") from error

    def _check_head(self, raw: list[bytes]) -> None:
        if not self._head.exists():
            if len(raw) > 1:
                raise Tampered(f"{self._head} is missing, so the last line cannot be checked; restore it from a backup")
            return
        head = Head.read(self._head)
        # A crash between the line and the head leaves the head one line behind; the next append heals it.
        if len(raw) < head.lines or len(raw) > head.lines + 1:
            raise Tampered(f"{self.path} has {len(raw)} lines where {head.lines} were written; restore it from a backup")
        if _sha256(raw[head.lines - 1]) != head.sha256:
            raise Tampered(f"{self.path}: line {head.lines} was changed: its sha256 differs from {self._head.name}; restore it")


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
