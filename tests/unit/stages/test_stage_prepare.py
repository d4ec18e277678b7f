"""The stage `prepare` with and without copies: what is held out is the same to the byte."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.contracts.data import SPLITS, DatasetVersion
from autoglm_ops.data.rows import Row
from autoglm_ops.data.tables import read_samples, write_rows
from autoglm_ops.settings import Settings
from autoglm_ops.stages import prepare, tokenize
from autoglm_ops.stages.base import Context, Outcome

WORDS = "这本书很好内容不错物流也快下次再来可惜字太小价格便宜"
ROWS = [
    Row(
        f"r{n}",
        f"{WORDS[n % 9 : n % 9 + 12]}，第{n}次。{WORDS[n % 14 :]}",
        ("pos", "neg")[n % 2],
        f"2026-01-0{1 + n % 3}",
        "s",
        n,
    )
    for n in range(120)
]


def prepared(root: Path, name: str, **augment: Any) -> tuple[Outcome, Path]:
    """One run of the stage over ROWS."""
    (root / "out" / "validate").mkdir(parents=True, exist_ok=True)
    write_rows(root / "out" / "validate" / "rows.parquet", ROWS, Row)
    out = root / name
    out.mkdir()
    seed = augment.pop("seed", 7)
    chosen = Settings.model_validate({"seed": seed, "prepare": {"augment": augment}})
    return prepare.run(Context(root, out, root, root, root, "local", chosen)), out


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=15, deadline=None)
@given(
    copies=st.integers(1, 4),
    operations=st.lists(st.sampled_from(["delete", "swap", "crop", "shuffle"]), min_size=1, unique=True),
    share=st.floats(0.01, 0.9),
    seed=st.integers(0, 2**31 - 1),
)
def test_d10_with_any_setting_only_copies_are_added_and_nothing_else_moves_by_a_byte(
    copies: int, operations: list[str], share: float, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _, plain = prepared(root, "plain", seed=seed)
        done, out = prepared(root, "augmented", copies=copies, operations=operations, share=share, seed=seed)
        _, again = prepared(root, "again", copies=copies, operations=operations, share=share, seed=seed)
        before, after = content(plain), content(out)
        assert after == content(again)
        assert after.keys() - before.keys() == {"copies.parquet"}
        assert [name for name in before if before[name] != after[name]] == ["dataset.json"]
        _check_copies(out, done, copies)


def _check_copies(out: Path, done: Outcome, copies: int) -> None:
    table = pq.read_table(out / "copies.parquet").to_pydict()
    train = {row.id for row in read_samples(out / "train.parquet")}
    held = {row.text for name in ("validation", "gate") for row in read_samples(out / f"{name}.parquet")}
    assert set(table["parent"]) <= train
    assert not set(table["text"]) & held
    assert not set(table["id"]) & train
    assert done.facts["copies"] == len(table["id"])
    assert done.facts["copies"] + sum(done.facts["copies_dropped"].values()) == copies * len(train)


def test_by_default_there_are_no_copies_and_with_some_it_is_another_version(tmp_path: Path) -> None:
    done, plain = prepared(tmp_path, "plain", copies=0, operations=["swap"])
    assert sorted(content(plain)) == sorted(["dataset.json", "reference.json", *(f"{name}.parquet" for name in SPLITS)])
    assert "copies" not in done.facts
    _, out = prepared(tmp_path, "augmented", copies=1)
    one, other = (DatasetVersion.read(folder / "dataset.json") for folder in (plain, out))
    assert one.digest != other.digest
    assert one.model_copy(update={"digest": ""}) == other.model_copy(update={"digest": ""})


def test_copies_stand_behind_the_training_rows_and_the_tokenizer_never_sees_them(tmp_path: Path) -> None:
    folders = {}
    for name, copies in (("plain", 0), ("augmented", 2)):
        done, out = prepared(tmp_path, name, copies=copies)
        shutil.rmtree(tmp_path / "out" / "prepare", ignore_errors=True)
        shutil.copytree(out, tmp_path / "out" / "prepare")
        folders[name] = tmp_path / f"tokens-{name}"
        folders[name].mkdir()
        tokenize.run(Context(tmp_path, folders[name], tmp_path, tmp_path, tmp_path, "local", Settings()))
    for path in [*(folders["plain"] / "tokenizer").iterdir(), *folders["plain"].glob("[gv]*.npy")]:
        assert path.read_bytes() == (folders["augmented"] / path.relative_to(folders["plain"])).read_bytes()
    plain, more = (TokenArrays.open(folder, "train") for folder in folders.values())
    assert len(more) == len(plain) + done.facts["copies"]
    assert all((plain[row] == more[row]).all() for row in range(len(plain)))


def test_a_teacher_is_asked_for_the_rows_that_are_learned_from_and_changes_nothing_else(tmp_path: Path) -> None:
    _, out = prepared(tmp_path, "augmented", copies=2, operations=["crop"])
    shutil.copytree(out, tmp_path / "out" / "prepare")
    folders, said = [], []
    for teacher in ("none", "tfidf"):
        folders.append(tmp_path / teacher)
        folders[-1].mkdir()
        settings = Settings.model_validate({"tokenize": {"teacher": teacher}})
        said.append(tokenize.run(Context(tmp_path, folders[-1], tmp_path, tmp_path, tmp_path, "local", settings)))
    plain, taught = ({path.name: path.read_bytes() for path in folder.glob("*.*")} for folder in folders)
    assert taught.keys() - plain.keys() == {"train.teacher.npy"}
    assert all(taught[name] == plain[name] for name in plain)
    found = TokenArrays.open(folders[1], "train")
    assert found.teacher is not None and found.teacher.shape == (len(found), 2)
    agrees = float(np.mean(found.teacher.argmax(1) == found.labels))
    assert said[1].facts["teacher_agrees"] == round(agrees, 4) and "teacher_agrees" not in said[0].facts
    assert len(set(map(bytes, found.teacher))) > len(read_samples(out / "train.parquet")), "copies are thought of by themselves"


def test_the_half_life_that_the_last_days_show_weighs_the_rows_and_is_said(tmp_path: Path) -> None:
    turned = [
        row._replace(label=("neg", "pos")[number % 2] if row.timestamp == "2026-01-01" else row.label)
        for number, row in enumerate(ROWS)
    ]
    (tmp_path / "out" / "validate").mkdir(parents=True)
    write_rows(tmp_path / "out" / "validate" / "rows.parquet", turned, Row)
    weights = {}
    for asked in (0, 1, "auto"):
        out = tmp_path / f"{asked}"
        out.mkdir()
        chosen = Settings.model_validate({"prepare": {"half_life_days": asked}})
        said = prepare.run(Context(tmp_path, out, tmp_path, tmp_path, tmp_path, "local", chosen))
        weights[asked] = {row.day: row.weight for row in read_samples(out / "train.parquet")}
    assert set(weights[0].values()) == {1.0}
    assert weights[1] == {"2026-01-01": 0.25, "2026-01-02": 0.5, "2026-01-03": 1.0}
    measured = said.facts["half_life"]
    assert weights["auto"] == weights[measured["days"]] and said.reasons == (measured["reason"],)
