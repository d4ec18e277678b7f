"""The outside world, once: what a run may know is written into `inputs/*.json` and the resolved params.yaml (design §4)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from autoglm_ops.contracts.data import SourceManifest
from autoglm_ops.contracts.feedback import FeedbackSnapshot, PatchSet
from autoglm_ops.contracts.inputs import AsOf, Folders
from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.contracts.release import Champion
from autoglm_ops.contracts.training import HardwareSpec, StudyHistory
from autoglm_ops.errors import BadData
from autoglm_ops.settings import PLACEMENT, Settings
from autoglm_ops.stages import folders, studies
from autoglm_ops.versioning import git

# What changes neither data nor weights: left out of the content key, so that a switched-off promotion is no new model.
_IRRELEVANT = PLACEMENT | {"release", "monitor", "feedback"}


@dataclass(frozen=True)
class Snapshot:
    """Everything a run knows of the outside world."""

    as_of: AsOf
    source: SourceManifest
    champion: Champion
    hardware: HardwareSpec
    patches: PatchSet
    feedback: FeedbackSnapshot
    folders: Folders
    history: StudyHistory

    def records(self) -> dict[str, Record]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def write(self, root: Path) -> None:
        for name, record in self.records().items():
            record.write(root / "inputs" / f"{name}.json")

    def digest(self) -> str:
        return digest_of({name: record.fingerprint() for name, record in self.records().items()})

    def content_key(self, settings: Settings, code: str) -> str:
        """Equal keys give equal weights: data, parameters and code, but neither the champion nor where things are."""
        dump = settings.model_dump(mode="json")
        parts = {name: record.fingerprint() for name, record in self.records().items() if name != "champion"}
        params = {name: value for name, value in dump.items() if name not in _IRRELEVANT}
        return digest_of({"inputs": parts, "params": params, "code": code})


def take(settings: Settings, origin: Path, home: Path, as_of: date | None, today: date) -> Snapshot:
    """Look at the dataset, the registry, the hardware and the loop's state. `as_of` (default: today) is clipped to what exists."""
    from autoglm_ops.data import source

    data = settings.data
    folder = source.resolve(data.path, origin)
    first, last = source.days(folder, data.epoch, data.days, data.columns.model_dump())
    feedback = _feedback(settings, home)
    newest = max(last, feedback.until or last)
    day = min((as_of or today).isoformat(), newest)
    if day < first:
        raise BadData(f"as_of {day} is before the dataset's first day {first}; choose a later --as-of")
    return Snapshot(
        as_of=AsOf(day=day),
        source=source.manifest(folder),
        champion=champion(settings, home),
        hardware=hardware(),
        patches=_patches(home, date.fromisoformat(day)),
        feedback=feedback,
        folders=folders.look(settings, origin),
        history=studies.history(settings, home),
    )


def champion(settings: Settings, home: Path) -> Champion:
    """The registry's champion; an alias moved by hand is noticed, put into the ledger and honoured."""
    if settings.tracking.uri is None and not (home / "mlflow" / "mlflow.db").exists():
        return Champion()
    from autoglm_ops.stages.releasing import reconciled_champion

    return reconciled_champion(settings, home)


def hardware() -> HardwareSpec:
    """CPUs this process may use, memory in GiB, and NVIDIA GPUs when their tool is there."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = _gpus()
    return HardwareSpec(
        cpus=cpus,
        memory_gib=max(1, round(memory / 2**30)),
        gpus=len(gpus),
        gpu_memory_gib=min((memory for _, memory in gpus), default=0),
        gpu_name=gpus[0][0] if gpus else "",
    )


def _gpus() -> list[tuple[str, int]]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    rows: Iterable[list[str]] = (line.split(",") for line in done.stdout.splitlines() if done.returncode == 0)
    return [(name.strip(), int(memory) // 1024) for name, memory in rows]


def _feedback(settings: Settings, home: Path) -> FeedbackSnapshot:
    path = home / "feedback" / "current.json"
    return FeedbackSnapshot.read(path) if settings.data.feedback and path.exists() else FeedbackSnapshot()


def _patches(home: Path, day: date) -> PatchSet:
    from autoglm_ops.feedback.history import History

    return History(home / "feedback" / "patches.jsonl").active(day)


def code_digest(origin: Path, tree: str) -> str:
    """The part of the source tree that decides what a stage computes."""
    parts = ("autoglm_ops", "expectations", "dvc.yaml", "requirements.lock")
    return digest_of({part: git.subtree(origin, tree, part) for part in parts})
