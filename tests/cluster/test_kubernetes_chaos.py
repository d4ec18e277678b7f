"""Five faults of `make chaos-cluster`: pods deleted, tasks cleared and started twice, schedulers killed; every run is right and done once."""

from __future__ import annotations

import sys
from typing import Any

from cluster_parts import ROOT

sys.path.append(str(ROOT / "tests" / "benchmarks"))
import chaos_cluster


def test_five_faults(core: Any, monkeypatch: Any) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")  # the campaign sets its own; afterwards they are as they were
    tally = chaos_cluster.campaign(faults=5, seconds=300, seed=7)
    assert tally.injected == 5 and tally.wrong == 0, vars(tally)
