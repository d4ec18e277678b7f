"""A build: every document accounted for, the same dataset however it was cut, killed or shared out."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import build_corpus
import polars as pl
import pytest

from autoglm_ops.contracts.flow import BuiltDataset, Recipe
from autoglm_ops.contracts.record import digest_path, digest_tree
from autoglm_ops.data.build.finish import load
from autoglm_ops.data.build.plan import plan
from autoglm_ops.data.build.whole import PHASES, numbers, run, task
from autoglm_ops.data.readers import Limits
from autoglm_ops.errors import BadData, SettingsError


def build(raw: Path, home: Path, recipe: Recipe | None = None, jobs: int = 1) -> tuple[BuiltDataset, Path]:
    work = plan(str(raw), recipe or build_corpus.recipe(), home / "scratch", Limits())
    made = run(work, home / "datasets", Limits(), jobs, lambda *_: None)
    assert sorted(path.name for path in work.iterdir()) == ["finished.json", "plan.json"]
    return made, home / "datasets" / made.digest


def _command(raw: Path, home: Path, first: str = "") -> list[str]:
    """A build in a process of its own. Its modules are read before `first`, and its compiled loops."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_build as t;"
    code += f"{first} t.build(Path(sys.argv[2]), Path(sys.argv[3]))"
    return [sys.executable, "-B", "-c", code, str(Path(__file__).parent), str(raw), str(home)]


def texts(folder: Path) -> list[str]:
    return pl.concat([pl.read_parquet(folder / part.name) for part in load(folder).parts])["text"].to_list()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    raw = tmp_path_factory.mktemp("raw")
    return raw, build_corpus.write(raw)


@pytest.fixture(scope="module")
def built(corpus: tuple[Path, dict[str, int]], tmp_path_factory: pytest.TempPathFactory) -> tuple[BuiltDataset, Path]:
    return build(corpus[0], tmp_path_factory.mktemp("home"))


def test_every_document_is_accounted_for_with_its_reason(
    corpus: tuple[Path, dict[str, int]], built: tuple[BuiltDataset, Path]
) -> None:
    planted, (made, folder) = corpus[1], built
    assert (made.seen, made.kept) == (planted["seen"], planted["kept"])
    assert made.dropped == {reason: planted[reason] for reason in ("duplicate", "empty", "near-duplicate")}
    assert made.quarantined == {"bad-json": 1}
    dropped = pl.concat([pl.read_parquet(path) for path in (folder / "_dropped").iterdir()])
    assert dropped.height == sum(made.dropped.values()) and dropped["line"].null_count() == 0
    [rejected] = [json.loads(line) for line in (folder / "_rejected.jsonl").read_text().splitlines()]
    assert rejected["reason"] == "bad-json" and rejected["raw"] == '{"text": broken'
    assert {part.sha256 for part in made.parts} == {digest_path(folder / part.name) for part in made.parts}


def test_the_cut_into_shards_and_the_processes_change_no_document(
    corpus: tuple[Path, dict[str, int]], built: tuple[BuiltDataset, Path], tmp_path: Path
) -> None:
    again, _ = build(corpus[0], tmp_path / "again", jobs=2)
    assert again == built[0] and len(built[0].parts) > 2
    coarse, folder = build(corpus[0], tmp_path / "coarse", build_corpus.recipe(shard_bytes=1 << 30))
    assert len(coarse.parts) == 1 and texts(folder) == texts(built[1])


def test_killed_ten_times_it_ends_with_the_same_dataset(
    corpus: tuple[Path, dict[str, int]], built: tuple[BuiltDataset, Path], tmp_path: Path
) -> None:
    draw = random.Random(5)
    command = _command(corpus[0], tmp_path)
    kills = 0
    while kills < 10:
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        work = tmp_path / "scratch"
        deadline = time.monotonic() + 60
        while not work.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.25)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
        if child.returncode == 0:
            break
    subprocess.run(command, check=True)
    [folder] = (tmp_path / "datasets").iterdir()
    assert digest_tree(folder) == digest_tree(built[1])


def test_tasks_in_any_order_and_twice_make_the_same(
    corpus: tuple[Path, dict[str, int]], built: tuple[BuiltDataset, Path], tmp_path: Path
) -> None:
    work = plan(str(corpus[0]), build_corpus.recipe(), tmp_path / "scratch", Limits())
    for phase in PHASES:
        for number in [*reversed(numbers(work, phase)), 0] if len(numbers(work, phase)) else []:
            task(work, phase, number, Limits())
    made = run(work, tmp_path / "datasets", Limits(), 1, lambda *_: None)  # finds all of it done
    assert made.digest == built[0].digest


def test_the_same_build_again_does_nothing_until_its_dataset_is_gone(
    corpus: tuple[Path, dict[str, int]], tmp_path: Path
) -> None:
    made, folder = build(corpus[0], tmp_path)
    before = folder.stat().st_mtime_ns
    assert build(corpus[0], tmp_path)[0] == made and folder.stat().st_mtime_ns == before
    shutil.rmtree(folder)
    assert build(corpus[0], tmp_path)[0] == made and folder.exists()


def test_caps_and_mixing_hold_whatever_the_shards(corpus: tuple[Path, dict[str, int]], tmp_path: Path) -> None:
    made, folder = build(corpus[0], tmp_path / "one", build_corpus.recipe(source_cap=40, mix={"s0": 2.0, "s1": 1.0}))
    assert set(made.sources) == {"s0", "s1"} and max(made.sources.values()) <= 40
    assert {"source-cap", "mix"} <= set(made.dropped)
    other, elsewhere = build(
        corpus[0], tmp_path / "two", build_corpus.recipe(source_cap=40, mix={"s0": 2.0, "s1": 1.0}, shard_bytes=1 << 30)
    )
    assert texts(elsewhere) == texts(folder) and other.sources == made.sources


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": ({"name": "normalize"},)}, "did you mean 'normalise'"),
        ({"steps": ({"name": "normalise", "options": {"depth": 1}},)}, "depth"),
        ({"steps": ({"name": "mix"},)}, "set flow.mix instead"),
        ({"dedup": {"treshold": 0.7}}, "treshold"),
        ({"dedup": {"threshold": 7}}, "between 0 and 1"),
    ],
)
def test_a_wrong_recipe_is_refused_before_any_work(
    corpus: tuple[Path, dict[str, int]], tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises((SettingsError, Exception), match=said):
        plan(str(corpus[0]), build_corpus.recipe(**change), tmp_path, Limits())
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_of_nothing_is_refused_and_nothing_is_published(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text('{"text": "  "}\n' * 3)
    with pytest.raises(BadData, match="nothing is left of 3 documents: empty 3"):
        build(tmp_path / "raw", tmp_path)
    assert not (tmp_path / "datasets").exists()


def test_a_file_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    build_corpus.write(tmp_path / "raw")
    work = plan(str(tmp_path / "raw"), build_corpus.recipe(), tmp_path, Limits())
    (tmp_path / "raw" / "a.jsonl").write_text('{"text": "other"}\n')
    with pytest.raises(Exception, match=r"a\.jsonl"):
        run(work, tmp_path / "datasets", Limits(), 1, lambda *_: None)


def test_a_full_disk_says_so_and_the_same_build_goes_on(tmp_path: Path) -> None:
    build_corpus.write(tmp_path / "raw")
    full = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
    full += "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"  # of a process of its own: it holds for good
    child = subprocess.run(_command(tmp_path / "raw", tmp_path, full), capture_output=True, text=True, check=False, timeout=120)
    assert child.returncode == 1 and "TryAgain" in child.stderr and "free space" in child.stderr
    assert not (tmp_path / "datasets").exists()
    build(tmp_path / "raw", tmp_path)
