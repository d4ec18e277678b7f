"""What the tests of `autoglm data …` share: a checkout of their own, and a call of the command line in this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_ops.cli.main import main

ROOT = Path(__file__).parents[3]
TEXT = "this is review number {} of a house by the sea with many words that nobody wrote twice so far {}"


def checkout(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`place`/checkout with the settings and suites of this one, and `place`/home, for what this test calls."""
    root = place / "checkout"
    (root / "expectations").mkdir(parents=True)
    for path in (ROOT / "params.yaml", *ROOT.glob("expectations/*.yaml")):
        (root / path.relative_to(ROOT)).write_bytes(path.read_bytes())
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(root))
    monkeypatch.setenv("AUTOGLM_HOME", str(place / "home"))
    return root


def call(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """`autoglm data ARGUMENTS`, which must end with `code`: its stdout, or its stderr when it was to fail."""
    with pytest.raises(SystemExit) as ended:
        main(["data", *arguments])
    said = capsys.readouterr()
    assert ended.value.code == code, said
    return said.out if code == 0 else said.err
