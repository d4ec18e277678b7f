"""The data engine on a gigabyte: one digest from a folder, from an S3 server, and after ten kills; memory at 10^5 and at 10^6 documents.

    python tests/benchmarks/proof_data.py --mb 1000 --kills 10      # or: make proof-data

The folder is real text of the machine (corpus_data), made dirty: JSONL plain, gzip, zstd and cut off in the middle, Parquet, CSV and
plain text, with planted copies, near-copies, and lines that are no JSON, no UTF-8, NaN, too long or empty. Each build is a process of
its own with a home of its own, through the command line. Memory is measured on builds whose tasks are processes of their own, as the
DAG dataset_build runs them: the peak of the largest task of each phase. Leaves
.autoglm/bench/proof.json; ends with 1 when a line does not hold.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import corpus_data
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from rich.console import Console

from autoglm_ops.data.build.sample import ROWS
from autoglm_ops.data.build.whole import PHASES

ROOT = Path(__file__).parents[2]
STEPS = ["normalise", "pii", "language", {"gopher-quality": {"cjk_share": 0.3}}, "gopher-repetition", "c4"]
FLAT = 1.15  # how much more a task of the larger build may take
# `finish` looks at ROWS documents at most: it is as large as its sample, and comparable when both samples are full.
SMALLEST = 400e6  # what the process takes with its libraries: a task below it is not weighed against a smaller one
DIRT = (b"{broken\n", b'{"text": "\xff\xfe"}\n', b'{"text": "a", "weight": NaN}\n', b"\n", b'{"text": ""}\n', b'{"other": 1}\n')
FILES = 24  # of lines: 16 plain, 4 gzip, 4 zstd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--memory-alone", action="store_true", help="leave the three builds out")
    parser.add_argument(
        "--documents", type=int, nargs=2, default=(100_000, 1_000_000), help="the two sizes memory is compared at"
    )
    arguments = parser.parse_args()
    bench = ROOT / ".autoglm" / "bench"
    bench.mkdir(parents=True, exist_ok=True)
    raw = dirty(bench / "data" / f"dirty-{arguments.mb}", arguments.mb)
    record: dict[str, Any] = {"bytes": sum(path.stat().st_size for path in raw.iterdir()), "files": len(list(raw.iterdir()))}
    say = Console(highlight=False).print
    with tempfile.TemporaryDirectory(dir=bench) as place:
        home = Path(place)
        if not arguments.memory_alone:
            record |= builds(home, raw, arguments, say)
        record["memory"] = [memory(home, bench, count) for count in arguments.documents]
        for size in record["memory"]:
            peaks = ", ".join(f"{phase} {peak / 1e6:.0f}" for phase, peak in size["rss"].items())
            say(f"{size['documents']:,} documents, {size['bytes'] / 1e6:.0f} MB: peak MB of a task: {peaks}")
    (bench / "proof.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    faults = wrong(record, arguments.kills)
    say("; ".join(faults) if faults else "flat memory" if arguments.memory_alone else "one digest, flat memory")
    sys.exit(bool(faults))


def wrong(record: dict[str, Any], kills: int) -> list[str]:
    (small, large), kept = (size["rss"] for size in record["memory"]), record["memory"][0]["kept"]
    grown = [
        phase
        for phase, peak in large.items()
        if peak > FLAT * max(small[phase], SMALLEST) and (phase != "finish" or kept >= ROWS)
    ]
    faults = [f"memory grew in {', '.join(grown)}"] if grown else []
    if "folder" in record:
        digests = {record[name]["digest"] for name in ("folder", "killed", "s3")}
        faults += ["the three builds differ"] if len(digests) != 1 else []
        faults += ["it was killed too seldom"] if record["killed"]["kills"] < kills else []
    return faults


def builds(home: Path, raw: Path, arguments: argparse.Namespace, say: Callable[..., None]) -> dict[str, Any]:
    """The three builds of the same folder."""
    folder = built(home / "folder", str(raw), arguments.jobs)
    say(f"folder: {told(folder)}")
    after = killed(home / "killed", str(raw), arguments.jobs, arguments.kills, folder["seconds"])
    say(f"killed {after['kills']} times: {told(after)}")
    with server(home / "s3", raw) as (location, environment):
        bucket = built(home / "bucket", location, arguments.jobs, environment)
    say(f"S3: {told(bucket)}")
    return {"folder": folder, "killed": after, "s3": bucket}


def told(found: dict[str, Any]) -> str:
    lost = {**found["dropped"], **found["quarantined"]}
    return (
        f"{found['digest'][:16]}, {found['seen']:,} seen, {found['kept']:,} kept, {sum(found['dropped'].values()):,} dropped, "
        f"{sum(found['quarantined'].values()):,} quarantined for {len(lost)} reasons, {found['seconds']:.0f} s, peak {found['rss'] / 1e6:.0f} MB"
    )


def dirty(folder: Path, megabytes: int) -> Path:
    """The folder, made once a size."""
    if folder.exists():
        return folder
    part, chance = folder.with_name(f"{folder.name}.part"), random.Random(3)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    corpus = corpus_data.build(folder.parent, megabytes, seed=2)
    with ExitStack() as stack:
        files = [stack.enter_context(opened(part, number)) for number in range(FILES)]
        with corpus.open("rb") as lines:
            for line in lines:
                file = chance.choice(files)
                file.write(line)
                if chance.random() < 0.001:
                    file.write(chance.choice(DIRT))
        files[0].write(b'{"text": "' + b"x" * (2 << 20) + b'"}\n')
    others(part, corpus)
    part.rename(folder)
    return folder


@contextmanager
def opened(folder: Path, number: int) -> Iterator[BinaryIO]:
    path = folder / f"part-{number:02d}.jsonl"
    if number < FILES - 8:
        with path.open("wb") as file:
            yield file
    elif number < FILES - 4:
        with gzip.open(f"{path}.gz", "wb", compresslevel=1) as packed:
            yield packed  # type: ignore[misc]
    else:
        with Path(f"{path}.zst").open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as packed:
            yield packed  # type: ignore[misc]


def others(folder: Path, corpus: Path) -> None:
    """What is not JSONL, and a gzip file that was cut off."""
    whole = (folder / "part-16.jsonl.gz").read_bytes()
    (folder / "torn.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with corpus.open("rb") as lines:
        rows = [json.loads(line) for _, line in zip(range(20_000), lines, strict=False)]
    texts = [row["text"] for row in rows]
    pq.write_table(pa.table({"text": texts[::3]}), folder / "table.parquet", compression="zstd")
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "source"], *([text, "csv"] for text in texts[1::3])])
    (folder / "plain.txt").write_text(
        "\n".join(line for text in texts[2::9] for line in text.split("\n") if line), encoding="utf-8"
    )


def command(location: str, jobs: int) -> list[str]:
    settings = [f"--set=flow.steps={json.dumps(STEPS)}", "--set=flow.shard_mb=64"]
    return [sys.executable, "-m", "autoglm_ops", "data", "build", location, f"--jobs={jobs}", "--json", *settings]


def built(home: Path, location: str, jobs: int, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """One build to its end: what it says, its wall seconds and the peak memory of its largest process."""
    started = time.monotonic()
    code, rss, said = waited(begun(home, command(location, jobs), environment), home)
    if code:
        raise SystemExit(f"the build of {location} ended with {code}:\n{(home / 'err').read_text()[-2000:]}")
    return {**json.loads(said), "seconds": time.monotonic() - started, "rss": rss}


def begun(home: Path, words: list[str], environment: dict[str, str] | None) -> subprocess.Popen[bytes]:
    home.mkdir(parents=True, exist_ok=True)
    whole = {
        **os.environ,
        **(environment or {}),
        "AUTOGLM_HOME": str(home),
        "AUTOGLM_CHECKOUT": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    with (home / "out").open("wb") as out, (home / "err").open("wb") as err:
        return subprocess.Popen(words, env=whole, stdout=out, stderr=err, cwd=ROOT, start_new_session=True)


def waited(child: subprocess.Popen[bytes], home: Path) -> tuple[int, int, str]:
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    lines = (home / "out").read_text().splitlines()
    return child.returncode, usage.ru_maxrss * 1024, lines[-1] if lines else ""


def killed(home: Path, location: str, jobs: int, kills: int, seconds: float) -> dict[str, Any]:
    """The build, its whole process group killed at `kills` random moments, then to its end. One that ended before its kill does not count."""
    chance, done = random.Random(4), 0
    while done < kills:
        child = begun(home, command(location, jobs), None)
        try:
            child.wait(chance.uniform(2, 2 + seconds / kills * 1.5))
            break
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            done += 1
    return {**built(home, location, jobs), "kills": done}


@contextmanager
def server(folder: Path, raw: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The raw folder in a bucket of a real S3 server."""
    sys.path.insert(0, str(ROOT / "tests" / "contracts"))
    import boto3
    from s3_server import BUCKET, serve_s3

    folder.mkdir()
    with serve_s3(folder) as environment:
        keys = {
            "aws_access_key_id": environment["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": environment["AWS_SECRET_ACCESS_KEY"],
        }
        client = boto3.client(
            "s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name=environment["AWS_DEFAULT_REGION"], **keys
        )
        for path in sorted(raw.iterdir()):
            client.upload_file(str(path), BUCKET, f"raw/{path.name}")
        yield f"s3://{BUCKET}/raw", environment


def memory(home: Path, bench: Path, count: int) -> dict[str, Any]:
    """Peak memory of the largest task of each phase of a build of `count` documents of like length."""
    raw, place = home / f"many-{count}", home / f"memory-{count}"
    raw.mkdir()
    write_many(raw / "many.jsonl", count, texts_of(corpus_data.build(bench / "data", 20)))
    settings = command(str(raw), 1)[-2:]
    work = json.loads(asked(place, ["plan", str(raw), "--json", *settings])[1])["work"]
    peaks: dict[str, int] = {}
    for phase in (*PHASES, "finish"):
        numbers = [0] if phase == "finish" else json.loads(asked(place, ["numbers", work, phase, "--json"])[1])["numbers"]
        for number in numbers:
            rss, said = asked(place, ["task", work, phase, str(number), "--json", *settings])
            peaks[phase] = max(peaks.get(phase, 0), rss)
    return {"documents": count, "bytes": (raw / "many.jsonl").stat().st_size, "kept": json.loads(said)["kept"], "rss": peaks}


def asked(home: Path, words: list[str]) -> tuple[int, str]:
    """Peak memory and the answer of one `autoglm data` command."""
    code, rss, said = waited(begun(home, [sys.executable, "-m", "autoglm_ops", "data", *words], None), home)
    if code:
        raise SystemExit(f"{' '.join(words)} ended with {code}:\n{(home / 'err').read_text()[-2000:]}")
    return rss, said


def write_many(path: Path, count: int, texts: Callable[[int], str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps({"id": f"m{number}", "text": texts(number)}) + "\n")


def texts_of(corpus: Path) -> Callable[[int], str]:
    """A text by number: sentences of the corpus in an order of its own, so that few are near-copies and their length does not grow."""
    with corpus.open(encoding="utf-8") as file:
        sentences = [
            part.strip() for line in file for part in json.loads(line)["text"][:3000].split(". ") if 40 < len(part) < 200
        ]

    def text(number: int) -> str:
        return ". ".join(random.Random(number).choices(sentences, k=6)) + "."

    return text


if __name__ == "__main__":
    main()
