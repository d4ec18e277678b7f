"""What a stage is: a function from a Context to an Outcome, and a Spec that says what it reads.

A stage reads its inputs under `context.root`, writes its outputs under `context.out` (a staging folder that becomes
`out/<stage>` when it returns), and touches nothing else. An effect is the same without `out`: it changes the world outside
the workspace and is idempotent by the run key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoglm_ops.settings import Settings


@dataclass(frozen=True)
class Spec:
    """What a stage reads. `dvc.yaml` says the same; a test holds that they agree.

    after: stages whose outputs it reads; their completion is required and their digests are checked.
    inputs: files below inputs/ that it reads. params: sections of params.yaml. code: its own packages and files.
    dvc: False for effects.
    """

    name: str
    target: str
    after: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    params: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    dvc: bool = True


@dataclass(frozen=True)
class Context:
    """Where a stage works.

    root: the workspace. out: the staging folder (stages only). home: $AUTOGLM_HOME. origin: the user's checkout, against which
    relative data paths resolve. scratch: survives a retry of the same inputs. run: the run key, "local" in a checkout.
    """

    root: Path
    out: Path
    home: Path
    origin: Path
    scratch: Path
    run: str
    settings: Settings

    def output(self, stage: str, name: str = "") -> Path:
        """Where an earlier stage's output lies."""
        return self.root / "out" / stage / name

    def input(self, name: str) -> Path:
        return self.root / "inputs" / f"{name}.json"


@dataclass(frozen=True)
class Outcome:
    """What a stage says of itself. `facts` are deterministic and recorded in its output; `measured` (times, rates) are not."""

    reasons: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)


Stage = Callable[[Context], Outcome]
