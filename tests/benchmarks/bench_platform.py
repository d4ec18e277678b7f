"""Start-up costs of the platform itself: what importing it, its command line and each DAG file adds.

    python tests/benchmarks/bench_platform.py      # or: make bench

Each figure is the median of seven fresh processes with its quartiles, less an empty interpreter or `airflow.sdk` where it says "adds".
The pairs are interleaved, so that a busy neighbour slows both.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
REPEATS = 7
LOAD = "import importlib.util as u, sys; s = u.spec_from_file_location('dag', sys.argv[1]); m = u.module_from_spec(s); s.loader.exec_module(m)"


def seconds(code: str, *arguments: str) -> float:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, cwd=ROOT, env=environment, capture_output=True)
    return time.perf_counter() - started


def added(code: str, base: str, *arguments: str) -> list[float]:
    """Interleaved differences between `code` and `base`."""
    return [seconds(code, *arguments) - seconds(base, *arguments) for _ in range(REPEATS)]


def main() -> None:
    sdk = "import airflow.sdk"
    rows: list[tuple[str, float, list[float]]] = [
        ("import autoglm_ops adds", 0.05, added("import autoglm_ops", "pass")),
        (
            "autoglm --version",
            1.0,
            [seconds("from autoglm_ops.cli.main import main; main(['--version'])") for _ in range(REPEATS)],
        ),
    ]
    for path in sorted((ROOT / "dags").glob("*.py")):
        rows.append((f"{path.name} adds to airflow.sdk", 0.3, added(f"{sdk}; {LOAD}", sdk, str(path))))
    table = Table("what", "median s", "quartiles", "goal", box=None)
    record = []
    for name, goal, values in rows:
        low, middle, high = statistics.quantiles(values, n=4)
        table.add_row(name, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", f"<= {goal:g}")
        record.append({"what": name, "median": middle, "quartiles": [low, high], "goal": goal, "values": values})
    Console().print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cpus, Python {platform.python_version()}", table
    )
    out = ROOT / ".autoglm" / "bench"
    out.mkdir(parents=True, exist_ok=True)
    (out / "platform.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
