"""A clone as a newcomer has it, with a dataset of their own named in params.yaml, and settings that a test can wait for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from autoglm_ops.settings import load
from autoglm_ops.stages import replay
from autoglm_ops.versioning import git

ROOT = Path(__file__).parents[2]
DAYS, ROWS = 4, 350
TINY = {
    "tune": {"trials": 2, "steps": 10, "space": {"train.learning_rate": {"loguniform": [1.0e-3, 1.0e-2]}}},
    "train": {"epochs": 1, "evaluations": 2},
    "tokenize": {"max_length": 48},
    "gate": {"minimum": 0.3, "min_rows": 50},
}


@dataclass(frozen=True)
class Checkout:
    """A clone as a newcomer has it, with a dataset of their own named in params.yaml."""

    root: Path
    home: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("AUTOGLM")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        mine = {"AUTOGLM_HOME": str(self.home), "PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return {**clean, **mine, **self.extra}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "autoglm_ops", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(), stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def call(self, *arguments: str, code: int = 0, seconds: float = 500) -> str:
        child = self.start(*arguments)
        out, err = child.communicate(timeout=seconds)
        assert child.returncode == code, f"exit {child.returncode}\n{out[-3000:]}\n{err[-3000:]}\n{self.logs()}"
        return out + err

    def logs(self) -> str:
        paths = sorted((self.home / "airflow" / "logs").rglob("attempt=*.log"), key=lambda path: path.stat().st_mtime)
        return paths[-1].read_text(errors="replace")[-3000:] if paths else ""


def make_checkout(folder: Path) -> Checkout:
    """A clone with 1,400 real reviews of four days as its own JSONL file, and settings that a test can wait for."""
    git.clone(ROOT, folder)
    rows = []
    for number, day in enumerate(list(replay.traffic(load(ROOT / "params.yaml", environ={})))[:DAYS]):
        # Half of each class: the bundled order has one class first.
        half = len(day.texts) // 2
        chosen = [*range(ROWS // 2), *range(half, half + ROWS // 2)]
        for place in chosen:
            rows.append({"body": day.texts[place], "stars": day.labels[place], "at": f"2026-03-{number + 1:02d}"})
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "reviews.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["data"] |= {
        "path": "reviews.jsonl",
        "columns": {**params["data"]["columns"], "text": "body", "label": "stars", "timestamp": "at"},
    }
    for section, values in TINY.items():
        params[section] |= values
    path.write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    return Checkout(folder, folder / ".autoglm")
