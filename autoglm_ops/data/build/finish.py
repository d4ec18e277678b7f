"""The last task: every document accounted for, and the parts under one digest."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from autoglm_ops.contracts.flow import BuildPlan, BuiltDataset, Counts, DatasetPart
from autoglm_ops.contracts.record import digest_of, digest_path, locked, write_text
from autoglm_ops.data.build.folders import made_whole
from autoglm_ops.data.build.plan import read_plan
from autoglm_ops.data.build.tasks import place
from autoglm_ops.errors import AutoGLMError, BadData, Tampered

DONE = "finished.json"
RECORD = "_dataset.json"  # an underscore hides it, and what else is no data, from whoever reads the folder as a dataset
Check = Callable[[BuiltDataset, Sequence[Path]], Mapping[str, str]]
"""Looks at a dataset, given the Parquet files of its documents, before it is published. Raises BadData to refuse it; returns texts to
lay beside the parts, by file name."""


def unchecked(dataset: BuiltDataset, files: Sequence[Path]) -> Mapping[str, str]:
    """Lets every dataset pass."""
    return {}


def finish(work: Path, datasets: Path, check: Check = unchecked) -> BuiltDataset:
    """Publish `datasets/<digest>/`, one caller at a time: parts named after their content, _dropped/, _rejected.jsonl, _dataset.json and what `check` says. Of
    the work folder stays what says that it is done; then `check` alone is asked again, since it may be another one.

    Raises BadData when nothing is left or `check` refuses, AutoGLMError when a document is unaccounted for.
    """
    with locked(work / "plan.json"):
        return _finish(work, datasets, check)


def _finish(work: Path, datasets: Path, check: Check) -> BuiltDataset:
    if (dataset := finished(work, datasets)) is not None:
        said = check(dataset, [datasets / dataset.digest / part.name for part in dataset.parts])
    else:
        dataset, said = _publish(work, datasets, check)
    for name, text in said.items():
        write_text(datasets / dataset.digest / name, text)
    return dataset


def _publish(work: Path, datasets: Path, check: Check) -> tuple[BuiltDataset, Mapping[str, str]]:
    made = read_plan(work)
    numbers = range(len(made.shards))
    parts = [_part(work, number) for number in numbers]
    filled = [part for part in parts if part.rows]
    dataset = _described(made, work, filled)
    if not filled:
        raise BadData(
            f"nothing is left of {dataset.seen} documents: {_listed(dataset.dropped)}; loosen flow.steps, or look at {work}",
            ("empty-dataset",),
        )
    files = [place(work, "write", number) / "kept.parquet" for number, part in zip(numbers, parts, strict=True) if part.rows]
    said = check(dataset, files)
    target = datasets / dataset.digest
    if not target.exists():
        with made_whole(target) as folder:
            _lay_down(work, zip(numbers, parts, strict=True), folder)
            dataset.write(folder / RECORD)
    dataset.write(work / DONE)
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    return dataset, said


def finished(work: Path, datasets: Path) -> BuiltDataset | None:
    """What this build has made already, while the dataset is still there: the same raw text and recipe make it once."""
    made = BuiltDataset.read(work / DONE) if (work / DONE).exists() else None
    return made if made is not None and (datasets / made.digest / RECORD).exists() else None


def load(folder: Path) -> BuiltDataset:
    """The record of a dataset. Raises Tampered when it is torn, BadData when there is none."""
    if not (folder / RECORD).exists():
        raise BadData(
            f"{folder} is no dataset: it has no {RECORD}; `autoglm data list` shows what there is", ("no-such-dataset",)
        )
    return BuiltDataset.read(folder / RECORD)


def verified(folder: Path, digest: str) -> BuiltDataset:
    """The record of dataset `digest`, when its parts are, byte for byte, what the digest says. Raises Tampered, BadData."""
    dataset = load(folder)
    found = {part.name: digest_path(folder / part.name) if (folder / part.name).is_file() else "" for part in dataset.parts}
    wrong = [part.name for part in dataset.parts if found[part.name] != part.sha256]
    if wrong or not digest == dataset.digest == digest_of(found):
        raise Tampered(
            f"{folder} is not dataset {digest}: {', '.join(wrong) or RECORD} is missing or was changed; remove the folder, then build or "
            "pull it again",
            ("tampered",),
        )
    return dataset


def _part(work: Path, number: int) -> DatasetPart:
    folder = place(work, "write", number)
    path, rows = folder / "kept.parquet", Counts.read(folder / "counts.json").kept
    sha256 = digest_path(path)
    return DatasetPart(name=f"part-{number:06d}-{sha256[:16]}.parquet", sha256=sha256, rows=rows, size=path.stat().st_size)


def _described(made: BuildPlan, work: Path, parts: list[DatasetPart]) -> BuiltDataset:
    first, last = (
        [Counts.read(place(work, phase, n) / "counts.json") for n in range(len(made.shards))] for phase in ("read", "write")
    )
    dataset = BuiltDataset(
        digest=digest_of({part.name: part.sha256 for part in parts}),
        recipe=made.recipe,
        files=len({part.name for shard in made.shards for part in shard}),
        bytes=sum(part.stop - part.start for shard in made.shards for part in shard),
        seen=sum(counts.seen for counts in first),
        kept=sum(counts.kept for counts in last),
        characters=sum(counts.characters for counts in last),
        dropped=_summed(counts.dropped for counts in [*first, *last]),
        quarantined=_summed(counts.quarantined for counts in first),
        masked=_summed(counts.masked for counts in first),
        sources=_summed(counts.sources for counts in last),
        parts=tuple(parts),
    )
    _conserve(dataset)
    return dataset


def _conserve(dataset: BuiltDataset) -> None:
    out = dataset.kept + sum(dataset.dropped.values()) + sum(dataset.quarantined.values())
    if dataset.seen != out or dataset.kept != sum(part.rows for part in dataset.parts):
        raise AutoGLMError(
            f"{dataset.seen} documents were read and {out} are accounted for; this is a bug, nothing was published"
        )


def _summed(parts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return {word: count for word, count in sorted(total.items()) if count}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{word} {count}" for word, count in counts.items())


def _lay_down(work: Path, parts: Iterable[tuple[int, DatasetPart]], folder: Path) -> None:
    """Parts are linked, not copied: the work folder goes afterwards."""
    (folder / "_dropped").mkdir()
    with (folder / "_rejected.jsonl").open("wb") as rejected:
        for number, part in parts:
            written, first = place(work, "write", number), place(work, "read", number)
            if part.rows:
                os.link(written / "kept.parquet", folder / part.name)
            for phase, source in (("steps", first), ("corpus", written)):
                os.link(source / "dropped.parquet", folder / "_dropped" / f"{number:06d}-{phase}.parquet")
            with (first / "rejected.jsonl").open("rb") as lines:
                shutil.copyfileobj(lines, rejected)
