"""Where things are: $AUTOGLM_HOME, the origin checkout, scratch. A workspace says so in .workspace.json; a checkout is its own origin."""

from __future__ import annotations

import os
from pathlib import Path

from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.settings import PLACEMENT, Settings
from autoglm_ops.stages.base import Spec


class Workplace(Record):
    """`.workspace.json` of a run workspace (design §4). Not tracked: it holds paths of this machine."""

    run: str
    origin: str
    home: str


def describe(root: Path) -> Workplace:
    """The workspace's own description, or the checkout's defaults. $AUTOGLM_HOME wins in both."""
    path = root / ".workspace.json"
    if path.exists():
        return Workplace.read(path)
    place = os.environ.get("AUTOGLM_HOME") or root / ".autoglm"
    return Workplace(run="local", origin=str(root.resolve()), home=str(Path(place).resolve()))


def home(root: Path) -> Path:
    return Path(describe(root).home)


def origin(root: Path) -> Path:
    return Path(describe(root).origin)


def run_key(root: Path) -> str:
    return describe(root).run


def scratch(home_folder: Path, spec: Spec, settings: Settings, inputs: dict[str, str]) -> Path:
    """`$AUTOGLM_HOME/scratch/<stage>-<digest of everything the stage's output depends on but its code>`. Not created here."""
    dump = settings.model_dump(mode="json")
    params = {name: dump[name] for name in spec.params if name not in PLACEMENT}
    digest = digest_of({"stage": spec.name, "inputs": inputs, "params": params})
    return home_folder / "scratch" / f"{spec.name}-{digest[:16]}"
