"""`autoglm doctor`: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.console import Console
from rich.table import Table

from autoglm_ops.cli.shared import AsJson, checkout, home, show_json
from autoglm_ops.errors import AutoGLMError, UsageError
from autoglm_ops.settings import load
from autoglm_ops.stages import snapshot
from autoglm_ops.versioning import git

PACKAGES = (
    "apache-airflow",
    "torch",
    "transformers",
    "deepspeed",
    "mlflow",
    "dvc",
    "great-expectations",
    "boto3",
    "optuna",
    "snownlp",
)


@dataclass(frozen=True)
class Check:
    """One look: ok, or what is missing and how to get it. `needed` ones decide the exit code."""

    name: str
    ok: bool
    found: str
    advice: str = ""
    needed: bool = True


def doctor(as_json: AsJson = False) -> None:
    """Check the machine, the packages, the checkout and the settings. Exit 2 when something needed is missing."""
    checks = list(look())
    if as_json:
        show_json([check.__dict__ for check in checks])
    else:
        table = Table("", "check", "found", "advice", box=None)
        for check in checks:
            mark = "[green]ok[/]" if check.ok else ("[red]no[/]" if check.needed else "[yellow]--[/]")
            table.add_row(mark, check.name, check.found, "" if check.ok else check.advice)
        Console().print(table)
    bad = [check.name for check in checks if check.needed and not check.ok]
    if bad:
        raise UsageError(f"missing: {', '.join(bad)}; see the advice above")


def look() -> Iterator[Check]:
    """Every check, cheapest first; nothing heavy is imported."""
    yield Check("python", sys.version_info[:2] == (3, 11), platform.python_version(), "use Python 3.11")
    system = platform.system()
    yield Check(
        "system", system == "Linux", f"{system} {platform.machine()}", "untested here: only Linux is tested", needed=False
    )
    for tool, why in (("git", "a run is a commit"), ("gcc", "DeepSpeed may compile"), ("make", "the two commands")):
        yield Check(tool, shutil.which(tool) is not None, shutil.which(tool) or "not found", f"install {tool}: {why}")
    for name in PACKAGES:
        yield _package(name)
    yield _checkout()
    yield _settings()
    hardware = snapshot.hardware()
    yield Check("cpus", hardware.cpus >= 2, str(hardware.cpus), "two ranks share one core: slow, not wrong", needed=False)
    yield Check("memory", hardware.memory_gib >= 6, f"{hardware.memory_gib} GiB", "6 GiB are needed for the default cycle")
    gpus = f"{hardware.gpus} × {hardware.gpu_name}" if hardware.gpus else "none"
    yield Check(
        "gpu", hardware.gpus > 0, gpus, "not needed; training runs on CPU ranks (GPU paths are unproven here)", needed=False
    )
    yield _disk()
    yield from _slurm()


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", "run `make install`")


def _checkout() -> Check:
    try:
        git.require_checkout(checkout())
        return Check("checkout", True, str(checkout()))
    except UsageError as error:
        return Check("checkout", False, "no", str(error))


def _settings() -> Check:
    try:
        load(checkout() / "params.yaml")
        return Check("params.yaml", True, "valid")
    except UsageError as error:
        return Check("params.yaml", False, "invalid", str(error))


def _disk() -> Check:
    place = home() if home().exists() else checkout()
    free = shutil.disk_usage(place).free / 2**30
    return Check("disk", free > 5 and os.access(place, os.W_OK), f"{free:.0f} GiB free", "5 GiB and write access are needed")


def _slurm() -> Iterator[Check]:
    """Looked at where it is wanted: without a configuration Slurm's commands try for a minute."""
    from autoglm_ops.cluster import slurm_commands

    try:
        if load(checkout() / "params.yaml").cluster.backend != "slurm":
            return
    except UsageError:  # said above
        return
    try:
        yield Check("slurm", True, slurm_commands.ping())
    except AutoGLMError as error:
        yield Check("slurm", False, "no", str(error))


def add_to(app: typer.Typer) -> None:
    app.command()(doctor)
