"""Layers of settings: who wins, and what an error says."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.errors import SettingsError
from autoglm_ops.settings import Settings, load, load_tree
from autoglm_ops.settings.layers import known_keys, parse_yaml
from autoglm_ops.settings.writer import write_resolved

ROOT = Path(__file__).parents[3]
PARAMS = ROOT / "params.yaml"


def test_set_beats_environment_beats_config_beats_file(tmp_path: Path) -> None:
    config = tmp_path / "more.yaml"
    config.write_text("train: {learning_rate: 0.02, epochs: 5, batch_size: 8}\n")
    environ = {"AUTOGLM__TRAIN__EPOCHS": "6", "AUTOGLM__TRAIN__BATCH_SIZE": "16"}
    train = load(PARAMS, configs=[config], environ=environ, overrides=["train.batch_size=32"]).train
    assert (train.learning_rate, train.epochs, train.batch_size) == (0.02, 6, 32)


def test_the_train_config_layout_is_accepted(tmp_path: Path) -> None:
    config = tmp_path / "train-config.yaml"
    config.write_text(
        "model: {name: glm-large, seq_length: 2048}\n"
        "dataset: {path: s3://my-bucket/pretrain-data, tokenizer: glm-tokenizer}\n"
        "training: {batch_size: 1024, precision: bf16, optimizer: adamw}\n"
    )
    settings = load(PARAMS, configs=[config], environ={})
    assert settings.model.name == "glm-large"
    assert settings.tokenize.max_length == 2048
    assert settings.data.path == "s3://my-bucket/pretrain-data"
    assert settings.tokenize.tokenizer == "glm-tokenizer"
    assert (settings.train.batch_size, settings.train.precision, settings.train.optimizer) == (1024, "bf16", "adamw")


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.learning_rate=-1", ("train.learning_rate", "-1", "greater than 0", "--set")),
        ("train.lerning_rate=1", ("train.lerning_rate", "did you mean 'train.learning_rate'")),
        ("trian.epochs=1", ("trian", "did you mean 'train'")),
        ("seed=x", ("seed", "'x'", "integer")),
        ("prepare.holdout=1.5", ("prepare.holdout", "1.5", "less than or equal to 1")),
        ("train.learning_rate=.nan", ("train.learning_rate", "finite")),
        ("release.name=../up", ("release.name", "pattern")),
        (
            "store.uri=data/store",
            ("store.uri = 'data/store' (--set", "another folder in every run's workspace; write an absolute"),
        ),
        ("store.uri=file://data/store", ("store.uri", "absolute")),
        ("store.uri=''", ("store.uri", "absolute")),
        ("prepare.half_life_days=soon", ("prepare.half_life_days = 'soon'", "a number of days, 0 or more, or auto")),
        ("prepare.half_life_days=-1", ("prepare.half_life_days = -1", "a number of days, 0 or more, or auto")),
        ("tracking.uri=mlruns", ("tracking.uri", "another folder in every run's workspace; write an absolute")),
        ("tracking.uri=sqlite:///mlflow.db", ("tracking.uri", "absolute")),
        ("tracking.uri=SQLite+pysqlite:///mlflow.db", ("tracking.uri", "absolute")),
        ("tracking.uri=FILE://mlruns", ("tracking.uri", "absolute")),
        ("nonsense", ("KEY=VALUE",)),
        ("train.epochs=[1", ("--set train.epochs", "YAML")),
        ("seed.x=1", ("seed.x", "not a section")),
    ],
)
def test_a_bad_value_names_key_value_rule_and_source(override: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as error:
        load(PARAMS, overrides=[override], environ={})
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize("uri", [None, "/data/store", "file:///data/store", "s3://bucket/prefix", "other://anything"])
def test_a_store_is_the_same_place_in_every_workspace(uri: str | None) -> None:
    assert load(PARAMS, overrides=[f"store.uri={uri or 'null'}"], environ={}).store.uri == uri


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "/data/mlruns",
        "file:/data/mlruns",
        "sqlite:////data/mlflow.db",
        "http://mlflow:5000",
        "postgresql://host/mlflow",
        "databricks",
    ],
)
def test_the_registry_is_the_same_one_in_every_workspace(uri: str | None) -> None:
    assert load(PARAMS, overrides=[f"tracking.uri={uri or 'null'}"], environ={}).tracking.uri == uri


def test_an_unknown_variable_is_an_error_that_names_it() -> None:
    with pytest.raises(SettingsError, match=r"train\.lr \(\$AUTOGLM__TRAIN__LR\)"):
        load(PARAMS, environ={"AUTOGLM__TRAIN__LR": "3e-4"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "stands twice"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: !!python/object:os.system x\n", "YAML"),
        ("a: [1, 2\n", "YAML"),
        ("x" * (2 << 20), "at most"),
        ("[" * 3000, "nested too deeply"),
        ("a:\n  ? [1, 2]\n  : 1\n", r"f\.yaml:2:5 .* a key must be a name"),
        ("a: !!int abc\n", r"f\.yaml:1:4 .* 'abc' is no int"),
        ("a: !!timestamp abc\n", "'abc' is no timestamp"),
        ("a: !!bool maybe\n", "'maybe' is no bool"),
        ("a: !!int ''\n", "'' is no int"),
        ("a: 0x_\n", "'0x_' is no int"),
        ("a: " + "9" * 5000, "'9{40}' is no int"),
    ],
)
def test_hostile_yaml_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_yaml(text, "f.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"- 1\n- 2\n"])
def test_a_params_file_that_is_not_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"params\.yaml"):
        load(path, environ={})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load(tmp_path / "params.yaml", environ={})


@given(st.sampled_from(known_keys()), st.text(max_size=20))
def test_any_text_for_any_key_is_a_setting_or_a_settings_error(key: str, value: str) -> None:
    try:
        assert isinstance(load(PARAMS, overrides=[f"{key}={value}"], environ={}), Settings)
    except SettingsError as error:
        assert str(error)


def test_a_key_of_the_space_is_one_key() -> None:
    space = load(PARAMS, overrides=["tune.space.train.learning_rate={loguniform: [1e-4, 1e-3]}"], environ={}).tune.space
    assert space["train.learning_rate"] == {"loguniform": [1e-4, 1e-3]}
    assert len(space) > 1


def test_resolved_overrides_are_written_with_comments_kept(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text(encoding="utf-8"), encoding="utf-8")
    overrides = [
        "train.epochs=1",
        "data.labelled_until=2026-01-02",
        "tune.space.train.learning_rate={loguniform: [1e-4, 1e-3]}",
    ]
    tree, origin = load_tree(path, overrides=overrides, environ={})
    write_resolved(path, tree, origin)
    text = path.read_text(encoding="utf-8")
    assert "# null lets the planner choose; it states why" in text
    assert load(path, environ={}) == load(PARAMS, overrides=overrides, environ={})
    tree, origin = load_tree(path, environ={})
    assert write_resolved(path, tree, origin) == []
    assert path.read_text(encoding="utf-8") == text


def test_a_share_of_a_teacher_needs_a_teacher() -> None:
    with pytest.raises(
        SettingsError, match=r"^train\.teacher = 0\.5 \(--set train\.teacher\) needs a teacher; set tokenize\.teacher to"
    ):
        load(PARAMS, overrides=["train.teacher=0.5"], environ={})
    assert load(PARAMS, overrides=["train.teacher=0.5", "tokenize.teacher=tfidf"], environ={}).train.teacher == 0.5
