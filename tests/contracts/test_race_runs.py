"""A short `make race-runs`: runs of one key at once make one result, one version and one promotion, on a folder and on a real S3 server."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import race_runs


@pytest.mark.parametrize("kind", [pytest.param("folder", marks=pytest.mark.slow), "s3"])
def test_racing_runs_are_promoted_once(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    uri = str(tmp_path / "store") if kind == "folder" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    found = race_runs.race(uri, tmp_path / "home", runs=24, processes=4, keys=3)
    assert found.right and found.versions == 3, found
