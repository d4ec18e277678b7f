"""Compiled loops outlive the clone they were compiled in, and no change of the package's sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shutil import copytree, ignore_patterns

ROOT = Path(__file__).parents[3]
MIX = """
import numpy as np
from autoglm_ops.data.steps import compiled
assert compiled.mix(np.uint64(7)) != 7
print(compiled.__file__, sum(compiled.mix.stats.cache_hits.values()), sum(compiled.mix.stats.cache_misses.values()))
"""


def _clone(place: Path) -> Path:
    copytree(ROOT / "autoglm_ops", place / "autoglm_ops", ignore=ignore_patterns("__pycache__"))
    return place


def _mix(clone: Path, cache: Path) -> tuple[int, int]:
    """Cache hits and misses of a process that runs the code of `clone`."""
    kept = {"NUMBA_CACHE_DIR": str(cache), "NUMBA_CACHE_LOCATOR_CLASSES": "autoglm_ops.data.kernels.BySource"}
    environment = {**os.environ, **kept, "PYTHONPATH": str(clone)}
    done = subprocess.run([sys.executable, "-c", MIX], cwd=clone, env=environment, capture_output=True, text=True, check=True)
    path, hits, misses = done.stdout.split()
    assert Path(path).is_relative_to(clone)
    return int(hits), int(misses)


def test_another_clone_of_the_same_sources_finds_them_and_a_changed_one_does_not(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert _mix(_clone(tmp_path / "first"), cache) == (0, 1)
    second = _clone(tmp_path / "second")
    assert _mix(second, cache) == (1, 0)
    with (second / "autoglm_ops/data/readers/scan.py").open("a") as file:
        file.write("# another file of the package, whose loops may be compiled into these\n")
    assert _mix(second, cache) == (0, 1)
