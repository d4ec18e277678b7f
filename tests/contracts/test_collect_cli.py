"""`autoglm runs gc` on a store of one's own: it says what would go, and then it goes."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from autoglm_ops.cli.main import main
from autoglm_ops.cluster import exchange
from autoglm_ops.contracts.cluster import Work
from autoglm_ops.store import open_store

ROOT = Path(__file__).parents[2]


def test_it_says_what_would_go_and_then_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(tmp_path))
    monkeypatch.setenv("AUTOGLM_HOME", str(tmp_path / "home"))
    store = open_store(None, tmp_path / "home")
    key = exchange.describe(store, Work(name="old", command=("true",)))
    exchange.claim(store, key)
    for path in (tmp_path / "home" / "store").glob("*.files"):
        os.utime(path, (time.time() - 9 * 86400, time.time() - 9 * 86400))

    def gc(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["runs", "gc", *words])
        assert not ended.value.code
        return capsys.readouterr().out

    assert gc("--days", "10") == "removed 0 artefacts of 0 jobs, 0 MiB freed\n"
    assert gc("--days", "8", "--dry-run") == "would remove 1 artefacts of 1 jobs\n" and store.has(key)
    assert json.loads(gc("--days", "8", "--json"))["jobs"] == 1 and not store.has(key)
    with pytest.raises(SystemExit) as refused:
        main(["runs", "gc", "--days", "0"])
    assert refused.value.code == 2
