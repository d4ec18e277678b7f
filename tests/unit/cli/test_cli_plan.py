"""`autoglm plan` as a person and as a machine call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm_ops.cli.main import main
from autoglm_ops.planning import MODELS

SMOL = MODELS["smollm2-135m"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[3] / "params.yaml").read_bytes())
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(tmp_path))
    monkeypatch.setenv("AUTOGLM_HOME", str(tmp_path / "home"))
    (tmp_path / "smol").mkdir()
    (tmp_path / "smol" / "config.json").write_text(json.dumps(SMOL))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *arguments])
    said = capsys.readouterr()
    assert ended.value.code == code, said
    return said.out, said.err


def test_the_default_model_fits_this_machine(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, _ = call(capsys, "--gpu", "cpu")
    assert "glm-small, classification: 1,188,864 parameters" in said
    assert "fits: " in said
    assert "why not tensor and pipeline parallel" in said
    assert (place / "home" / "plans" / "glm-small.json").is_file()


@pytest.mark.parametrize(("gpus", "nodes"), [(1, 1), (8, 1), (8, 2)])
@pytest.mark.parametrize("model", ["smol", "smol/config.json"])
def test_described_gpus(place: Path, capsys: pytest.CaptureFixture[str], model: str, gpus: int, nodes: int) -> None:
    options = ("--model", model, "--gpus", str(gpus), "--nodes", str(nodes), "--task", "causal-lm", "--seq-length", "512")
    found = json.loads(call(capsys, *options, "--json")[0])
    assert found["fits"] is True
    assert found["hardware"]["gpu_name"] == "h100-80g"
    assert found["plans"][0]["ranks"] * found["plans"][0]["micro_batch"] * found["plans"][0]["accumulation"] == 32
    assert found["shape"]["parameters"] == 134_515_008


README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
SHOWN = [line.partition("#")[0].split()[2:] for line in README.splitlines() if line.startswith("autoglm plan ")]


@pytest.mark.parametrize(("gpus", "nodes"), [(1, 1), (8, 1), (8, 2)])
@pytest.mark.parametrize("model", ["glm-small", "smollm2-135m", "glm-4-9b"])
def test_table_verdict_and_why_nots_on_1_8_and_16_gpus(
    place: Path, capsys: pytest.CaptureFixture[str], model: str, gpus: int, nodes: int
) -> None:
    said, _ = call(capsys, "--model", model, "--gpus", str(gpus), "--nodes", str(nodes), "--gpu", "h100-80g")
    lines = said.splitlines()
    where = f"{nodes} nodes of {gpus}" if nodes > 1 else str(gpus)
    assert lines[1].startswith(f"on {where} x h100-80g with 80 GiB; ")
    assert lines[3].split()[:4] + lines[3].split()[-3:] == ["plan", "ranks", "batch", "weights", "usable", "step", "s"]
    assert any(line.startswith("fits: ") for line in lines)
    assert any(line.startswith("why not ") for line in lines)


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_what_the_readme_shows_runs(place: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert "fits: " in call(capsys, *words)[0]


def test_the_readme_shows_the_default_model_a_small_and_a_large_one_on_1_8_and_16_gpus() -> None:
    text = [" ".join(words) for words in SHOWN]
    for model in ("--gpus 1", "--model smollm2-135m", "--model glm-4-9b", "--gpus 8 --nodes 2"):
        assert any(model in line for line in text)


def test_the_second_look_says_what_changed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "--model", "smol", "--gpus", "8")
    said, _ = call(capsys, "--model", "smol", "--gpus", "4", "--gpu", "l40s", "--batch-size", "64")
    assert "changed hardware: 1 x 8 h100-80g -> 1 x 4 l40s" in said
    assert "changed batch: 32 -> 64" in said
    assert "changed" not in call(capsys, "--model", "smol", "--gpus", "4", "--gpu", "l40s", "--batch-size", "64")[0]


def test_a_diff_is_all_that_is_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--model", "smol", "--gpus", "8", "--diff")
    assert call(capsys, *options)[0] == "smol: no earlier plan\n"
    assert call(capsys, *options)[0] == "smol: nothing changed\n"
    assert call(capsys, *options, "--batch-size", "64")[0].startswith("batch: 32 -> 64\n")


def test_what_does_not_fit_ends_with_3_and_the_table_of_reasons(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, error = call(capsys, "--model", "llama-2-70b", "--gpus", "1", "--gpu", "4090", code=3)
    assert said.count("why not ZeRO") > 4
    assert "does-not-fit: no plan for llama-2-70b fits 1 x 4090 with 24 GiB" in error


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--model", "gpt-9"), 2, "no folder or config.json here and no known name (glm-base, glm-large, glm-small"),
        (("--model", "torn.json"), 3, "is no readable config.json"),
        (("--model", "list.json"), 3, "holds a list where a model's config is an object"),
        (("--model", "code.json"), 3, "wants its own code to be run (auto_map)"),
        (("--model", "t5.json"), 2, "model_type = 't5' has no formula here; the planner knows bert, glm"),
        (("--gpu", "l40s"), 2, "give both"),
        (("--gpu", "tpu", "--gpus", "8"), 2, "'tpu' is not known; choose from"),
        (("--gpu", "cpu", "--gpus", "8"), 2, "CPU ranks stay on one machine"),
        (("--nodes", "2"), 2, "CPU ranks stay on one machine"),
        (("--gpu", "cpu", "--precision", "fp16"), 2, "needs a GPU"),
        (("--batch-size", "0"), 2, "batch-size"),
    ],
)
def test_bad_input_is_one_message(
    place: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], code: int, said: str
) -> None:
    (place / "torn.json").write_text('{"model_type": "gl')
    (place / "list.json").write_text("[1]")
    (place / "code.json").write_text(json.dumps({**SMOL, "auto_map": {"AutoModel": "x.Y"}}))
    (place / "t5.json").write_text(json.dumps({"model_type": "t5"}))
    _, error = call(capsys, *options, code=code)
    assert said in error.replace("\n", " ")
