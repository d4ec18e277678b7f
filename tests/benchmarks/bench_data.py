"""Filters and near-dedup: JSONL in, Gopher and C4 rules, near-duplicates out, Parquet; beside datatrove, datasketch and rensa.

    python tests/benchmarks/bench_data.py --mb 500 --repeats 5 --peers PYTHON      # or: make bench

PYTHON is an interpreter with datatrove 0.10.1, datasketch 2.0.0, rensa 0.5.0, orjson, xxhash and pyarrow; without it ours runs alone.
Every run is a process of its own on one core, ours and theirs in turn. Seconds are processor seconds of the work without imports (a
shared machine's clock says little), compiled code comes from numba's cache; MB is 10^6 bytes of JSONL. The ratio's interval is a 95 %
bootstrap over the repeats. datasketch and rensa only find near-duplicates: they get what our filters kept, already in memory.

Gates: equal filter decisions with datatrove; recall on the planted pairs (of those that both sides' filters kept, with the similarity
measured again on the text that C4's rules left); precision by sets of word 5-grams that are nobody's own code.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import corpus_data
from rich.console import Console
from rich.table import Table

from autoglm_ops.data.readers import Limits, Rejected, plan, read, survey
from autoglm_ops.data.rows import Shape

ROOT = Path(__file__).parents[2]
BUILD_SHARD = 256 << 20  # bytes of input to a shard, as params.yaml has it
SHARD = 32 << 20
ALONE = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "NUMBA_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
PEERS = ("datatrove", "datasketch", "rensa", "rensa-rho")


def ours(corpus: Path, out: Path) -> None:
    """One run in this process. Leaves what `peers_data` leaves, and `phases` in the printed line."""
    import polars as pl

    from autoglm_ops.data.neardup.options import Options
    from autoglm_ops.data.neardup.settle import gone
    from autoglm_ops.data.neardup.whole import dedup
    from autoglm_ops.data.steps.catalog import STEPS

    clock = Clock()
    steps = [(name, STEPS.get(name)(cjk_share=None)) for name in ("gopher-quality", "gopher-repetition", "c4")]
    kept_parts = Parts(out)
    for frame in frames(corpus):
        clock.add("read")
        for name, step in steps:
            frame, _ = step(frame)
            clock.add(name)
        kept_parts.add(frame)
        clock.add("write")
    shards = kept_parts.close()
    clock.add("write")
    dedup(shards, out / "work", Options())
    clock.add("dedup")
    kept, dropped = [], set()
    for number, path in enumerate(shards):
        frame = pl.read_parquet(path).with_row_index("row")
        bad = frame["row"].cast(pl.Int64).is_in(gone(out / "work", number)["row"].implode())
        frame.filter(~bad).drop("row").write_parquet(out / f"final-{number}.parquet", compression="zstd")
        kept += frame["id"].to_list()
        dropped |= set(frame.filter(bad)["id"])
    clock.add("final")
    (out / "filtered.json").write_text(json.dumps(kept), encoding="utf-8")
    (out / "gone.json").write_text(json.dumps(sorted(dropped)), encoding="utf-8")
    late = ("dedup", "final")
    dedup_seconds = sum(clock.spent[name] for name in late)
    seconds = {"filters": sum(clock.spent.values()) - dedup_seconds, "dedup": dedup_seconds}
    print(json.dumps({**seconds, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "phases": clock.spent}))


class Clock:
    """Processor seconds by name."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.process_time()

    def add(self, name: str) -> None:
        now = time.process_time()
        self.spent[name] = self.spent.get(name, 0.0) + now - self._last
        self._last = now


def frames(corpus: Path) -> Iterator[Any]:
    """The corpus as a build reads it: planned into shards, every row judged."""
    where, limits = str(corpus), Limits()
    shape = Shape({name: name for name in ("text", "label", "timestamp", "id", "source")}, date(2026, 1, 1))
    for shard in plan(survey(where, limits).blobs, BUILD_SHARD, cut=True):
        for item in read(shard, where, shape, limits):
            if isinstance(item, Rejected):
                raise SystemExit(f"a row of the corpus is refused: {item}")
            yield item


class Parts:
    """`kept-<n>.parquet` of about SHARD bytes of frames, written as they come: a frame that is held keeps its whole block alive."""

    def __init__(self, out: Path) -> None:
        self._out, self._paths, self._size = out, [], 0
        self._writer: Any = None

    def add(self, frame: Any) -> None:
        import pyarrow.parquet as pq

        table = frame.to_arrow()
        if self._writer is None:
            self._paths.append(self._out / f"kept-{len(self._paths)}.parquet")
            self._writer, self._size = pq.ParquetWriter(self._paths[-1], table.schema, compression="zstd"), 0
        self._writer.write_table(table)
        self._size += table.nbytes
        if self._size > SHARD:
            self.close()

    def close(self) -> list[Path]:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        return self._paths


def run(peer: str, python: str, corpus: Path, kept: Path, out: Path) -> dict[str, Any]:
    """One process of ours or a peer's on one core: its figures and where its lists are."""
    script = [__file__, "--child"] if peer == "ours" else [str(Path(__file__).with_name("peers_data.py")), peer]
    out.mkdir(parents=True)
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(
        [sys.executable if peer == "ours" else python, *script, str(corpus), str(kept), str(out)],
        env={**os.environ, **ALONE},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    lists = {name: json.loads((out / f"{name}.json").read_text()) for name in ("filtered", "gone")}
    return {**found, **lists, "total": found.get("filters", 0.0) + found["dedup"]}


def interval(values: list[float], others: list[float], draws: int = 2000) -> tuple[float, float, float]:
    """Median ratio others / values, and its 95 % bootstrap interval."""
    chance = random.Random(0)
    median = statistics.median
    ratios = sorted(
        median(chance.choices(others, k=len(others))) / median(chance.choices(values, k=len(values))) for _ in range(draws)
    )
    return median(others) / median(values), ratios[int(0.025 * draws)], ratios[int(0.975 * draws)]


def texts_of(folder: Path) -> dict[str, str]:
    import polars as pl

    frame = pl.concat([pl.read_parquet(path, columns=["id", "text"]) for path in sorted(folder.glob("kept-*.parquet"))])
    return dict(zip(frame["id"].to_list(), frame["text"].to_list(), strict=True))


def recall(pairs: list[list[str]], texts: dict[str, str], gone: set[str]) -> tuple[float, int]:
    """Share of the pairs at 0.80 to 0.85 in the filtered text of which one side was dropped, and how many pairs that are."""
    alive = [(a, b) for a, b in pairs if a in texts and b in texts and 0.80 <= corpus_data.jaccard(texts[a], texts[b]) <= 0.85]
    return sum(a in gone or b in gone for a, b in alive) / max(1, len(alive)), len(alive)


def precision(texts: dict[str, str], gone: set[str], near: set[str]) -> float:
    """Share of the dropped that have another document at 0.8 or more. `near`: those known to have one, found by `neighbours`."""
    return len(gone & near) / max(1, len(gone & texts.keys()))


def neighbours(work: Path, ids: list[list[str]], texts: dict[str, str]) -> set[str]:
    """Documents in a pair of our candidates (exact copies too) whose similarity by the neutral sets is 0.8 or more."""
    import numpy as np

    near: set[str] = set()
    for kind in ("copies", "pairs"):
        for path in sorted((work / kind).glob("*.npy")):
            for later, earlier in np.load(path).T.tolist():
                a, b = (ids[name >> 32][name & 0xFFFFFFFF] for name in (later, earlier))
                if not {a, b} <= near and corpus_data.jaccard(texts[a], texts[b]) >= 0.8:
                    near |= {a, b}
    return near


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", metavar="PYTHON", default="")
    parser.add_argument("--only", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--child", nargs=3, metavar=("CORPUS", "KEPT", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        ours(Path(arguments.child[0]), Path(arguments.child[2]))
        return
    say = Console().print
    bench = ROOT / ".autoglm" / "bench"
    corpus = corpus_data.build(bench / "data", arguments.mb)
    peers = arguments.only if arguments.peers else []
    if not peers:
        say("no --peers PYTHON: datatrove, datasketch and rensa are skipped, so there is no ratio and no equality")
    with tempfile.TemporaryDirectory(dir=bench) as place:
        record = measure(Path(place), corpus, arguments, peers)
        record["memory"] = memory(Path(place), bench, arguments.mb)
    show(record, say)
    (bench / "data.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measure(place: Path, corpus: Path, arguments: argparse.Namespace, peers: list[str]) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", *peers)}
    run("ours", "", corpus, corpus, place / "warm-up")
    kept = merged(place / "warm-up")
    for repeat in range(arguments.repeats):
        for name in runs:
            runs[name].append(run(name, arguments.peers, corpus, kept, place / f"{name}-{repeat}"))
    texts = texts_of(place / "warm-up")
    pairs = json.loads(corpus.with_suffix(".pairs.json").read_text())
    near = neighbours(place / "warm-up" / "work", shard_ids(place / "warm-up"), texts)
    size = corpus.stat().st_size / 1e6
    rows = [row(name, results, runs["ours"], size) for name, results in runs.items()]
    for one, (name, results) in zip(rows, runs.items(), strict=True):
        gone = set(results[0]["gone"])
        one["recall"], one["pairs"] = recall(pairs, texts, gone)
        one["precision"] = precision(texts, gone, near)
        one["equal"] = equal(corpus, results[0]["filtered"], runs["ours"][0]["filtered"]) if name == "datatrove" else None
    return {"mb": size, "documents": lines(corpus), "kept": len(texts), "machine": machine(), "rows": rows}


def row(name: str, results: list[dict[str, Any]], own: list[dict[str, Any]], size: float) -> dict[str, Any]:
    part = "total" if "filters" in results[0] else "dedup"
    values = [result[part] for result in results]
    ratio = interval([result[part] for result in own], values)
    phases = {key: statistics.median(result["phases"][key] for result in results) for key in results[0].get("phases", {})}
    return {
        "name": name,
        "work": "filters and dedup" if part == "total" else "dedup alone",
        "seconds": values,
        "filters": statistics.median(result.get("filters", 0.0) for result in results),
        "dedup": statistics.median(result["dedup"] for result in results),
        "mb_per_s": size / statistics.median(values),
        "ratio": ratio,
        "rss": max(result["rss"] for result in results),
        "phases": phases,
    }


def merged(folder: Path) -> Path:
    import polars as pl

    path = folder / "all.parquet"
    pl.concat([pl.read_parquet(part) for part in sorted(folder.glob("kept-*.parquet"))]).write_parquet(path)
    return path


def shard_ids(folder: Path) -> list[list[str]]:
    import polars as pl

    count = len(list(folder.glob("kept-*.parquet")))
    return [pl.read_parquet(folder / f"kept-{n}.parquet", columns=["id"])["id"].to_list() for n in range(count)]


def equal(corpus: Path, theirs: list[str], own: list[str]) -> float:
    return 1 - len(set(theirs) ^ set(own)) / lines(corpus)


def lines(corpus: Path) -> int:
    with corpus.open("rb") as file:
        return sum(1 for _ in file)


def machine() -> str:
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cpus, Python {platform.python_version()}"


def memory(place: Path, bench: Path, megabytes: int) -> list[tuple[int, int]]:
    """Peak resident bytes of ours at a quarter of the size and at all of it."""
    sizes = (max(1, megabytes // 4), megabytes)
    peaks = []
    for size in sizes:
        corpus = corpus_data.build(bench / "data", size)
        peaks.append((size, int(run("ours", "", corpus, corpus, place / f"memory-{size}")["rss"])))
    return peaks


def show(record: dict[str, Any], say: Callable[..., None]) -> None:
    say(f"{record['machine']}; {record['mb']:.0f} MB, {record['documents']} documents, {record['kept']} after the filters")
    table = Table(
        "who",
        "work",
        "median s",
        "filters s",
        "dedup s",
        "MB/s",
        "ours is faster (95 %)",
        "recall",
        "precision",
        "equal",
        "peak MB",
        box=None,
    )
    for one in record["rows"]:
        middle, low, high = one["ratio"]
        equality = "" if one["equal"] is None else f"{one['equal']:.3%}"
        table.add_row(
            one["name"], one["work"], f"{statistics.median(one['seconds']):.1f}", f"{one['filters']:.1f}", f"{one['dedup']:.1f}",
            f"{one['mb_per_s']:.1f}", f"{middle:.1f}x ({low:.1f} to {high:.1f})", f"{one['recall']:.4f} of {one['pairs']}",
            f"{one['precision']:.4f}", equality, f"{one['rss'] / 1e6:.0f}",
        )  # fmt: skip
    say(table)
    say("ours by phase, s:", {name: round(value, 2) for name, value in record["rows"][0]["phases"].items()})
    say("ours, peak memory:", ", ".join(f"{size} MB of input {peak / 1e6:.0f} MB" for size, peak in record["memory"]))


if __name__ == "__main__":
    main()
