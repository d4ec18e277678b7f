"""track → register → promote → deploy → summary on real MLflow, git, store and model: once, twice, cut short, in a race, by hand."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from release_workspace import Plot, git, make_origin, make_workspace, race
from typer.testing import CliRunner

from autoglm_ops.cli import release as commands
from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.record import Completion, digest_path
from autoglm_ops.contracts.release import Champion, Verdict
from autoglm_ops.errors import AutoGLMError, Refused, Tampered, TryAgain
from autoglm_ops.release.ledger import Ledger
from autoglm_ops.release.promotion import champion_at
from autoglm_ops.settings import load
from autoglm_ops.stages import graph, promote, releasing, runner
from autoglm_ops.stages.workplace import Workplace

Make = Callable[[Plot], Path]


@pytest.fixture(scope="module")
def real_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published tiny GLM classifier."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split

    from autoglm_ops.training import artifact
    from autoglm_ops.training.models import ModelSpec, build

    folder = tmp_path_factory.mktemp("model")
    vocabulary = {token: place for place, token in enumerate(["<pad>", "<unk>", *"abcdefghi"])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    meta = TokenMeta(vocabulary=len(vocabulary), pad_id=0, max_length=16, labels=("neg", "pos"), rows={})
    spec = ModelSpec.of({"name": "glm-tiny", "hidden_size": 32, "layers": 1, "heads": 2, "dropout": None}, meta, folder)
    build(spec, 1).save_pretrained(folder / "staged")
    tokenizer.save(str(folder / "staged" / "tokenizer.json"))
    artifact.publish(folder / "staged", folder / "model", architecture="Glm", labels=spec.labels, max_length=16)
    return folder / "model"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Folders that could be models, by seed: all that everything but `deploy` needs."""
    folder = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        (folder / str(seed)).mkdir()
        (folder / str(seed) / "config.json").write_text(json.dumps({"seed": seed}))
        (folder / str(seed) / "model.safetensors").write_bytes(bytes([seed]) * 5000)
    return {seed: folder / str(seed) for seed in (1, 2)}


@pytest.fixture(scope="module")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An $AUTOGLM_HOME whose MLflow database is migrated and empty: making one takes seconds, copying it none."""
    from autoglm_ops.tracking.mlflow import connect

    home = tmp_path_factory.mktemp("home")
    connect(None, home)
    return home


@pytest.fixture
def home(empty_home: Path, tmp_path: Path) -> Path:
    shutil.copytree(empty_home, tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return make_origin(tmp_path / "origin")


@pytest.fixture
def make(origin: Path, home: Path, models: dict[int, Path]) -> Make:
    return lambda plot: make_workspace(origin, home, models[plot.seed], plot)


def effects(root: Path, *names: str) -> dict[str, Completion]:
    return {name: runner.run_stage(name, root) for name in names or ("track", "register", "promote")}


def registry(root: Path, home: Path) -> Any:
    return releasing.open_registry(load(root / "params.yaml", environ={}), home)


def champion(root: Path, home: Path) -> Champion:
    return releasing.reconciled_champion(load(root / "params.yaml", environ={}), home)


def two_champions(make: Make, home: Path) -> Path:
    """v1, then v2 in its place. Returns the second workspace."""
    first = make(Plot(run="run1"))
    effects(first)
    second = make(Plot(run="run2", champion=champion(first, home), day="2026-01-06", score=0.9, seed=2))
    effects(second)
    return second


def test_a_promoted_run_leaves_everything_it_should_and_only_once(real_model: Path, origin: Path, home: Path) -> None:
    root = make_workspace(origin, home, real_model, Plot(run="run1"))
    done = effects(root, "track", "register", "promote", "deploy", "summary")
    assert done["promote"].facts["promoted"] and done["promote"].facts["tag"] == "model/v1"
    again = effects(root, "track", "register", "promote", "deploy", "summary")
    for name in ("track", "register", "deploy"):
        assert again[name].facts == done[name].facts
    assert again["promote"].reasons == ("this run promoted it before",)

    client = registry(root, home)._client
    run = client.get_run(done["track"].facts["mlflow_run"])
    assert len(client.search_runs([done["track"].facts["mlflow_experiment"]])) == 1
    assert run.info.status == "FINISHED" and run.data.params["train.batch_size"] == str(
        load(root / "params.yaml", environ={}).train.batch_size
    )
    assert run.data.params["tuned.train.learning_rate"] == "0.002" and run.data.params["planned.ranks"] == "2"
    assert not [name for name in run.data.params if name.startswith(("store.", "tracking."))]
    assert run.data.metrics["evaluation.macro_f1"] == 0.8 and run.data.metrics["training.tokens_per_second"] == 8000
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train.loss")] == [
        (10, 0.7),
        (20, 0.5),
    ]
    assert run.data.tags["mlflow.source.git.commit"] == git(root, "rev-parse", "HEAD")
    assert run.inputs.dataset_inputs[0].dataset.digest == "d" * 36
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"model", "plots", "records", "report.html"}

    (version,) = registry(root, home).versions()
    assert registry(root, home).alias() == version and version.model.digest == digest_path(root / "out" / "train" / "model")
    assert champion(root, home).model_dump() == {
        "model": version.model.model_dump(), "data_until": "2026-01-05", "content_key": "content-run1", "metric": 0.8
    }  # fmt: skip
    assert [line.action for line in Ledger(home / "ledger.jsonl").lines()] == ["promote"]
    assert git(origin, "rev-parse", "model/v1^{commit}") == git(root, "rev-parse", "HEAD")
    assert json.loads((home / "serving" / "champion.json").read_text()) == version.model.model_dump()
    assert list((home / "scratch").iterdir()) == []

    summary = json.loads((home / "latest" / "summary.json").read_text())
    assert list(summary) == [
        "run", "dataset", "validation", "tuning", "training", "evaluation", "gate", "release", "seconds"
    ]  # fmt: skip
    assert summary["release"] == {"name": "autoglm", "version": 1, "alias": "champion", "tag": "model/v1"}
    assert summary["dataset"] == {
        "version": "d" * 64,
        "rows": {"gate": 500, "train": 9000, "validation": 1000},
        "quarantined": 1,
    }
    assert summary["training"] == {"ranks": 2, "zero_stage": 1, "steps": 20, "tokens_per_second": 8000.0}
    assert summary["seconds"]["stages"]["ingest"] == 0.0 and summary["seconds"]["stages"]["train"] == 1.5
    assert summary["seconds"]["overhead"] > 0
    page = (home / "latest" / "report.html").read_text()
    assert "autoglm v1" in page and "model/v1" in page and "autoglm:run" not in page


def test_a_second_run_replaces_the_first_and_history_answers(make: Make, home: Path) -> None:
    first = make(Plot(run="run1"))
    effects(first)
    between = time.time()
    second = make(Plot(run="run2", champion=champion(first, home), day="2026-01-06", seed=2))
    effects(second)
    lines = Ledger(home / "ledger.jsonl").lines()
    assert [(line.model.version, line.replaced and line.replaced.version) for line in lines] == [(1, None), (2, 1)]
    assert [champion_at(lines, at).version for at in (between, time.time())] == [1, 2]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("gate", {"verdict": Verdict.REJECT}),
        ("gate", {"verdict": Verdict.INSUFFICIENT}),
        ("champion-changed", {"champion": Champion()}),
        ("older-data", {"day": "2026-01-01"}),
    ],
)
def test_what_may_not_be_promoted_is_registered_and_says_why(
    make: Make, home: Path, code: str, changes: dict[str, Any]
) -> None:
    first = make(Plot(run="run1"))
    effects(first)
    plot = replace(Plot(run="run2", champion=champion(first, home), day="2026-01-06", seed=2), **changes)
    second = make(plot)
    done = effects(second, "track", "register", "promote", "summary")
    assert done["promote"].exit == 0 and done["promote"].facts == {"promoted": False, "version": 2, "tag": None}
    assert done["promote"].reasons[0].startswith(f"not promoted: {code}")
    assert champion(first, home).model.version == 1 and len(Ledger(home / "ledger.jsonl").lines()) == 1
    assert json.loads((home / "latest" / "summary.json").read_text())["release"] == {
        "name": "autoglm", "version": 2, "alias": None, "tag": None
    }  # fmt: skip


def test_eight_racing_promotions_make_one_line(make: Make, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(Plot(run="run1"))
    effects(root, "track", "register")
    racing = tmp_path / "racing"  # a copy, so that no process shares an open database with this one
    shutil.copytree(home, racing)
    there = racing / "runs" / "run1"
    Workplace.read(root / ".workspace.json").model_copy(update={"home": str(racing)}).write(there / ".workspace.json")
    context = runner._context(graph.find("promote"), there, load(there / "params.yaml", environ={}), {})

    def prepare() -> Callable[[], str]:
        connected = registry(there, racing)
        monkeypatch.setattr(releasing, "open_registry", lambda *_: connected)
        return lambda: "; ".join(promote.run(context).reasons)

    answers = race(8, prepare)
    assert sorted(answers) == ["better: by 0.02"] + ["this run promoted it before"] * 7
    assert len(Ledger(racing / "ledger.jsonl").lines()) == 1
    assert champion(there, racing).model.version == 1


@pytest.mark.parametrize("cut", ["before the alias", "after the alias", "after the line"])
def test_a_promotion_cut_short_is_finished_or_forgotten_but_never_misread(
    make: Make, home: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    from autoglm_ops.release.registry import Registry

    root = make(Plot(run="run1"))
    effects(root, "track", "register")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        target = {
            "before the alias": (Registry, "set_champion"),
            "after the alias": (Ledger, "append"),
            "after the line": (Ledger, "drop_intent"),
        }
        patch.setattr(*target[cut], crash)
        with pytest.raises(KeyboardInterrupt):
            runner.run_stage("promote", root)
    assert champion(root, home).model == (None if cut == "before the alias" else registry(root, home).version(1).model)
    done = runner.run_stage("promote", root)
    assert done.facts["promoted"]
    assert [(line.action, line.actor) for line in Ledger(home / "ledger.jsonl").lines()] == [("promote", "autoglm")]


def test_an_alias_moved_by_hand_is_noticed_honoured_and_can_be_rolled_back(make: Make, home: Path) -> None:
    root = two_champions(make, home)
    registry(root, home)._client.set_registered_model_alias("autoglm", "champion", "1")
    assert champion(root, home).model.version == 1
    lines = Ledger(home / "ledger.jsonl").lines()
    assert (lines[-1].action, lines[-1].actor, lines[-1].replaced.version) == ("observed", "mlflow", 2)
    assert champion(root, home).model.version == 1 and len(Ledger(home / "ledger.jsonl").lines()) == 3

    answer = invoke(root, "rollback", "--json", "--reason", "v1 was a mistake")
    assert answer["model"]["version"] == 2 and answer["replaced"]["version"] == 1
    assert champion(root, home).model.version == 2
    assert json.loads((home / "serving" / "champion.json").read_text())["version"] == 2
    assert invoke(root, "rollback", "--json")["model"]["version"] == 1
    with pytest.raises(Refused, match="champions before autoglm v1 in the ledger: none"):
        invoke(root, "rollback")
    assert [line["action"] for line in invoke(root, "ledger", "--json")["lines"]] == [
        "promote",
        "promote",
        "observed",
        "rollback",
        "rollback",
    ]


def test_a_removed_alias_means_no_champion(make: Make, home: Path) -> None:
    root = two_champions(make, home)
    registry(root, home)._client.delete_registered_model_alias("autoglm", "champion")
    assert champion(root, home).model is None
    assert Ledger(home / "ledger.jsonl").lines()[-1].model is None
    assert invoke(root, "rollback", "--json")["model"]["version"] == 2


def test_what_was_rolled_back_is_not_promoted_again_by_a_run_but_by_hand(make: Make, home: Path) -> None:
    root = two_champions(make, home)
    invoke(root, "rollback", "--json")
    third = make(Plot(run="run3", champion=champion(root, home), day="2026-01-07", seed=2))
    assert effects(third)["promote"].reasons[0].startswith("not promoted: rolled-back")
    assert invoke(third, "promote", "3", "--json")["changed"]
    assert not invoke(third, "promote", "--version", "3", "--json")["changed"]
    lines = Ledger(home / "ledger.jsonl").lines()
    assert (lines[-1].action, lines[-1].model.version, lines[-1].reasons) == ("promote", 3, ("by-hand: promoted by hand",))
    assert git(third, "tag", "--list") == "model/v3"


def test_tampered_bytes_move_nothing(make: Make, home: Path) -> None:
    root = two_champions(make, home)
    first = registry(root, home).version(1).model
    stored = home / "store" / first.digest / "config.json"
    stored.chmod(0o644)
    stored.write_text(stored.read_text().replace("{", "{ ", 1))
    for command in (("rollback",), ("promote", "1")):
        with pytest.raises(Tampered, match=r"config\.json"):
            invoke(root, *command)
    assert champion(root, home).model.version == 2 and len(Ledger(home / "ledger.jsonl").lines()) == 2
    registry(root, home).set_champion(1)
    with pytest.raises(Tampered, match=r"config\.json"):
        runner.run_stage("deploy", root)
    assert not (home / "serving" / "champion.json").exists()


def test_a_tampered_ledger_stops_every_move(make: Make, home: Path) -> None:
    root = two_champions(make, home)
    path = home / "ledger.jsonl"
    path.write_text(path.read_text().replace("run1", "run9"))
    for command in (("ledger",), ("rollback",), ("promote", "1")):
        with pytest.raises(Tampered, match="line 1 was changed"):
            invoke(root, *command)
    assert registry(root, home).alias().model.version == 2


def test_a_version_nobody_registered_is_not_served_and_can_be_left(make: Make, home: Path) -> None:
    root = two_champions(make, home)
    client = registry(root, home)._client
    client.create_model_version("autoglm", source="file:///nowhere", await_creation_for=0)
    client.set_registered_model_alias("autoglm", "champion", "3")
    with pytest.raises(Refused, match="not registered by autoglm"):
        champion(root, home)
    with pytest.raises(Refused):
        invoke(root, "promote", "3")
    assert invoke(root, "rollback", "--json")["model"]["version"] == 2


def test_mlflow_away_spools_and_the_next_run_delivers(make: Make, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make(Plot(run="run1")), make(Plot(run="run2", seed=2))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("AUTOGLM__TRACKING__URI", "http://127.0.0.1:9")
    for _ in range(2):
        with pytest.raises(TryAgain, match="does not answer"):
            runner.run_stage("track", first)
    assert Completion.read(runner.completion_path(first, "track")).exit == 75
    monkeypatch.delenv("AUTOGLM__TRACKING__URI")
    done = runner.run_stage("track", second)
    client = registry(second, home)._client
    runs = client.search_runs([done.facts["mlflow_experiment"]])
    assert sorted(run.data.tags["autoglm.run_key"] for run in runs) == ["run1", "run2"]
    assert len(client.get_metric_history(runs[0].info.run_id, "train.loss")) == 2
    assert runner.run_stage("track", first).facts["mlflow_run"] in {run.info.run_id for run in runs}

    runner.run_stage("register", first)
    monkeypatch.setenv("AUTOGLM__TRACKING__URI", "http://127.0.0.1:9")
    with pytest.raises(TryAgain):
        runner.run_stage("promote", first)
    assert not (home / "ledger.jsonl").exists()


def test_deploy_without_a_champion_says_what_to_do(make: Make) -> None:
    with pytest.raises(AutoGLMError, match="autoglm promote VERSION"):
        runner.run_stage("deploy", make(Plot(run="run1")))


def test_the_commands_speak_to_people(make: Make, home: Path) -> None:
    root = make(Plot(run="run1"))
    assert "nothing was ever promoted" in said(root, "ledger")
    with pytest.raises(AutoGLMError, match="has no version 7; it has none yet"):
        invoke(root, "promote", "7")
    effects(root)
    assert "nothing to do: autoglm v1 is champion already" in said(root, "promote", "1")
    assert said(root, "ledger").splitlines()[1].split()[3:] == ["promote", "v1", "-", "autoglm", "run1", "better"]
    assert said(root, "ledger", "--at", "2020-01-01").strip() == "2020-01-01: no champion"
    for arguments, words in ((("promote",), "name one version"), (("promote", "1", "--version", "2"), "name one version"), (("ledger", "--at", "x"), "ISO date")):  # fmt: skip
        with pytest.raises(AutoGLMError, match=words) as caught:
            invoke(root, *arguments)
        assert caught.value.exit_code == 2


def said(root: Path, *arguments: str) -> str:
    app = typer.Typer()
    commands.add_to(app)
    environment = {"AUTOGLM_CHECKOUT": str(root), "COLUMNS": "120"}
    answer = CliRunner().invoke(app, list(arguments), env=environment)
    if answer.exception is not None:
        raise answer.exception
    return answer.output


def invoke(root: Path, *arguments: str) -> Any:
    output = said(root, *arguments)
    return json.loads(output) if "--json" in arguments else output
