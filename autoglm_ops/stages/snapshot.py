"""The outside world, once: what a run may know is written into `inputs/*.json` and the resolved params.yaml (design §4)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from autoglm_ops.contracts.data import SourceManifest
from autoglm_ops.contracts.feedback import FeedbackSnapshot, PatchSet
from autoglm_ops.contracts.inputs import AsOf, Folders
from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.contracts.release import Champion
from autoglm_ops.contracts.training import HardwareSpec, StudyHistory
from autoglm_ops.errors import BadData, SettingsError
from autoglm_ops.settings import PLACEMENT, Settings
from autoglm_ops.stages import folders, studies
from autoglm_ops.versioning import git

# What changes neither data nor weights: left out of the content key, so that a switched-off promotion is no new model.
_IRRELEVANT = PLACEMENT | {"release", "monitor", "feedback"}
_ABOUT = {"champion", "signals"}


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
    signals: SignalsOfDay
    history: StudyHistory

    def records(self) -> dict[str, Record]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def write(self, root: Path) -> None:
        for name, record in self.records().items():
            record.write(root / "inputs" / f"{name}.json")

    def digest(self) -> str:
        return digest_of({name: record.fingerprint() for name, record in self.records().items()})

    def content_key(self, settings: Settings, code: str) -> str:
        """Equal keys give equal weights: data, parameters and code, but neither the champion, nor what was said of it, nor where
        things are."""
        dump = settings.model_dump(mode="json")
        parts = {name: record.fingerprint() for name, record in self.records().items() if name not in _ABOUT}
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
        hardware=training_hardware(settings),
        patches=_patches(home, date.fromisoformat(day)),
        feedback=feedback,
        folders=folders.look(settings, origin),
        signals=_signals(settings, home, date.fromisoformat(day)),
        history=studies.history(settings, home),
    )


def champion(settings: Settings, home: Path) -> Champion:
    """The registry's champion; an alias moved by hand is noticed, put into the ledger and honoured."""
    if settings.tracking.uri is None and not (home / "mlflow" / "mlflow.db").exists():
        return Champion()
    from autoglm_ops.stages.releasing import reconciled_champion

    return reconciled_champion(settings, home)


def training_hardware(settings: Settings) -> HardwareSpec:
    """What the plan is made for: the cluster's GPUs when `train` goes there and asks for some, else this machine, with so many of its own
    GPUs at most.

    Several nodes count as one machine with all their GPUs. Raises SettingsError when the GPUs' kind is not named.
    """
    cluster = settings.cluster.of_team(settings.cluster.team)
    asked = cluster.resources
    if cluster.backend == "local" or "train" not in cluster.stages or not asked.gpus:
        here = hardware()
        limited = cluster.backend == "local" and 0 < asked.gpus < here.gpus
        return here.model_copy(update={"gpus": asked.gpus}) if limited else here
    from autoglm_ops.planning import described

    if asked.gpu is None:
        raise SettingsError(
            f"cluster.resources.gpus = {asked.gpus}, but cluster.resources.gpu names no kind, and the plan is made for one; "
            "`autoglm plan --help` lists them"
        )
    return described(asked.gpu, gpus=asked.gpus * asked.nodes, nodes=1)


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


def signals_path(home: Path, day: date) -> Path:
    """Where the loop keeps what production said on `day`."""
    return home / "feedback" / "signals" / f"{day.isoformat()}.json"


def _signals(settings: Settings, home: Path, day: date) -> SignalsOfDay:
    """The newest that was said in the window that ends with `day`."""
    paths = [signals_path(home, day - timedelta(days=back)) for back in range(settings.monitor.window_days)]
    return next((SignalsOfDay.read(path) for path in paths if path.exists()), SignalsOfDay())


def _patches(home: Path, day: date) -> PatchSet:
    from autoglm_ops.feedback.history import History

    return History(home / "feedback" / "patches.jsonl").active(day)


def code_digest(origin: Path, tree: str) -> str:
    """The part of the source tree that decides what a stage computes."""
    parts = ("autoglm_ops", "expectations", "dvc.yaml", "requirements.lock")
    return digest_of({part: git.subtree(origin, tree, part) for part in parts})
