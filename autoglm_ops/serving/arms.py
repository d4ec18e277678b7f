"""Two models on live traffic: who is answered by which. Sticky: a user stays with an arm as long as the challenger is the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from autoglm_ops.serving.batcher import Batcher
from autoglm_ops.serving.host import ModelHost


@dataclass(frozen=True)
class Arm:
    """A model in service and the queue before it."""

    host: ModelHost
    batcher: Batcher


@dataclass(frozen=True)
class Challenge:
    """A second model that answers `share` of the users."""

    host: ModelHost
    share: float


@dataclass(frozen=True)
class Arms:
    """The champion's arm, and the challenger's where there is one."""

    champion: Arm
    challenger: Arm | None = None
    share: float = 0.0

    def of(self, unit: str) -> Arm:
        """The arm of a user, or of a request that names none."""
        if self.challenger is None:
            return self.champion
        salt = self.challenger.host.current.ref.digest
        return self.challenger if drawn(unit, salt) < self.share else self.champion

    def all(self) -> tuple[Arm, ...]:
        return (self.champion,) if self.challenger is None else (self.champion, self.challenger)


def drawn(unit: str, salt: str) -> float:
    """A number in [0, 1) that is the unit's own: evenly spread, and independent for every salt."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{unit}".encode()).digest()[:8], "big") / 2**64


def hidden(user: str) -> str:
    """What is kept of a user's name: enough to group by, not the name."""
    return hashlib.sha256(f"user:{user}".encode()).hexdigest()[:16]
