"""Calls of `autoglm submit` in this process, in a checkout and a home of the test's own."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from autoglm_ops.cli.main import main

CODE = """
import os, pathlib, subprocess, sys, time
print("begins", os.environ.get("NOTE"), flush=True)
for n in range(int(sys.argv[1])):
    print("tick", n, flush=True)
    time.sleep(0.2)
pathlib.Path("out").mkdir()
pathlib.Path("out/made").write_text(os.environ["AUTOGLM_JOB_ID"])
sys.exit(int(sys.argv[2]))
"""


class Said(NamedTuple):
    exit: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Calls:
    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.folder, self.home, self._capture = folder, folder / "home", capture
        (folder / "checkout").mkdir()
        shutil.copy(Path(__file__).parents[2] / "params.yaml", folder / "checkout")
        patch.setenv("AUTOGLM_CHECKOUT", str(folder / "checkout"))
        patch.setenv("AUTOGLM_HOME", str(self.home))
        self.code = folder / "code"
        self.code.mkdir()
        (self.code / "go.py").write_text(CODE)

    def __call__(self, *words: str) -> Said:
        self._capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["submit", *words])
        return Said(int(ended.value.code or 0), *self._capture.readouterr())

    def submitted(self, *options: str, ticks: int = 0, code: int = 0) -> str:
        said = self("--code", str(self.code), *options, "--json", "--", "python", "go.py", str(ticks), str(code))
        assert said.exit == 0, said.err
        return str(said.json["id"])

    def ended(self, ident: str, seconds: float = 90) -> dict[str, Any]:
        self.wait(lambda: self("status", ident, "--json").json["state"] not in ("pending", "running"), seconds)
        return dict(self("status", ident, "--json").json)

    def wait(self, true: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, [path.read_text() for path in self.home.glob("jobs/*/log")]
            time.sleep(0.1)

    def says(self, ident: str, text: str) -> bool:
        return text in self("logs", ident).out
