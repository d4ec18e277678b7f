"""`autoglm cluster manifests` as an administrator calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from autoglm_ops.cli.main import main


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["cluster", "manifests", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def test_it_prints_what_kubectl_takes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(Path(__file__).parents[3]))
    code, said, _ = call(capsys, "--set", 'cluster.teams={"vision": {"kubernetes": {"namespace": "vision"}}}')
    assert code == 0 and "&id" not in said, "and no alias of YAML's, which a reader would have to resolve"
    found = list(yaml.safe_load_all(said))
    assert [one["metadata"]["name"] for one in found if one["kind"] == "Namespace"] == ["autoglm", "vision"]
    code, said, _ = call(capsys, "--team", "default")
    assert list(yaml.safe_load_all(said)) == found[:9]
    assert call(capsys, "--team", "nobody") == (2, "", "autoglm: unknown team 'nobody'; known: default\n")
