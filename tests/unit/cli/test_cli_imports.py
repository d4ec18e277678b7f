"""The command line starts in both images: what it imports is among what docker/*.lock installs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[3]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(image: str) -> set[str]:
    lock = (ROOT / "docker" / f"{image}.lock").read_text()
    return {normal(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}


def test_every_command_imports_only_what_each_image_has() -> None:
    """It failed when the demo's HTTP client kept `autoglm stage train` from starting in the trainer image."""
    code = (
        "import sys; from autoglm_ops.cli import main; main.build(); print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    owners = packages_distributions()
    needed = {normal(owners[name][0]) for name in loaded if name in owners} - {"autoglm-ops"}
    assert {"typer", "pydantic"} <= needed
    for image in ("trainer", "airflow"):
        assert needed - locked(image) == set(), image


def test_neither_image_carries_what_the_other_is_for() -> None:
    """Airflow's, of 250 packages, without torch; the trainer's, which every node pulls, without Airflow."""
    assert not [
        name for name in locked("airflow") if name in {"torch", "deepspeed", "transformers"} or name.startswith("nvidia-")
    ]
    assert not [
        name
        for name in locked("trainer")
        if name in {"mlflow", "dvc", "great-expectations"} or name.startswith("apache-airflow")
    ]
    assert "torch" in (ROOT / "docker" / "trainer.Dockerfile").read_text() and "apache-airflow" in locked("airflow")
