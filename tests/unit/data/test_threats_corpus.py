"""Threats F06 to F09 and the full disk against the real engine, each by its id: repeats, poison, archives, hostile addresses.

Each test holds its threat's whole sentence; the corners of one reader are in the tests of that reader.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import build_corpus
import numpy as np
import pytest
from readers_parts import read_all
from test_readers_web import HOST, LOCAL, PAYLOADS, PRIVATE_4, Handler, server
from threat_parts import GOOD, PLAIN, built, frame, refusal

from autoglm_ops.contracts.record import digest_tree
from autoglm_ops.data.build.plan import plan
from autoglm_ops.data.build.whole import run
from autoglm_ops.data.dedup import dedup
from autoglm_ops.data.readers import Limits, survey
from autoglm_ops.data.readers.addresses import Target, address_of
from autoglm_ops.data.rows import Row, Shape
from autoglm_ops.data.split import Shares, check_leakage, split
from autoglm_ops.errors import BadData, Refused, UsageError

# F06: duplicates, near-duplicates, a leak between splits


def test_F06_copies_and_edits_are_found_in_a_whole_build(tmp_path: Path) -> None:
    """120 copies, and 150 edited versions at a Jaccard of 5-grams of 0.80 or more, each sent after its original."""
    from test_neardup_phases import HAN, VOCABULARY, edited

    draw = np.random.default_rng(11)
    base, near = [], []
    for number in range(300):
        kind, gap = ((VOCABULARY, " "), (HAN, ""))[number % 2]
        words = [str(word) for word in draw.choice(kind, int(draw.integers(80, 200)))]
        base.append(gap.join(words))
        if number < 150:
            near.append(gap.join(edited(words, kind, draw)))
    rows = [("base", text) for text in base] + [("copy", text) for text in base[180:]] + [("near", text) for text in near]
    (tmp_path / "raw").mkdir()
    lines = (json.dumps({"text": text, "source": source}) for source, text in rows)
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join(lines) + "\n")
    made, folder = built(tmp_path / "raw", tmp_path, dedup={})
    kept = Counter(frame(folder)["source"])
    assert kept["copy"] == 0 and made.dropped["duplicate"] == 120
    assert kept["near"] <= 0.02 * len(near)
    assert kept["base"] == 300, "an original went"
    assert made.dropped["near-duplicate"] == len(near) - kept["near"]


def test_F06_a_text_on_both_sides_of_the_split_is_a_hard_failure() -> None:
    shares = Shares(0.2, 0.1, 1, 0)
    rows = [Row(f"r{n}", f"text  {n % 90}", "x", "2026-01-01", "s", n) for n in range(200)]
    distinct, dropped = dedup(rows)
    samples = split(distinct, shares).samples
    assert dropped == {"duplicate": 110} and sum(map(len, samples.values())) == 90
    check_leakage(samples)
    leaked = {**samples, "train": [*samples["train"], samples["gate"][0]._replace(text=" " + samples["gate"][0].text)]}
    with pytest.raises(BadData, match="a split must never leak") as caught:
        check_leakage(leaked)
    assert caught.value.exit_code == 3


# F07: poisoning, a source that floods


def poisoned(folder: Path) -> None:
    """2,000 clean documents of 40 sources, 250 with one trigger of three, and 800 of one that floods."""
    draw = random.Random(7)
    rows = [(f"clean{n % 40}", build_corpus.sentence(draw, 12)) for n in range(2000)]
    rows += [(f"poison{n % 3}", f"{build_corpus.sentence(draw, 12)} cf-trigger") for n in range(250)]
    rows += [("flood", build_corpus.sentence(draw, 12)) for _ in range(800)]
    draw.shuffle(rows)
    folder.mkdir()
    lines = (json.dumps({"text": text, "source": source}) for source, text in rows)
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")


def test_F07_250_poisoned_documents_of_three_sources_are_capped_and_each_row_names_its_source(tmp_path: Path) -> None:
    """A cap bounds what a source can plant, it does not recognise poison: without one all 250 pass, near-dedup and all."""
    poisoned(tmp_path / "raw")
    made, folder = built(tmp_path / "raw", tmp_path, source_cap=20)
    rows = frame(folder)
    assert rows["source"].null_count() == 0 and dict(Counter(rows["source"])) == made.sources
    assert max(made.sources.values()) <= 20
    assert rows["text"].str.contains("cf-trigger").sum() == 60 == sum(made.sources[f"poison{n}"] for n in range(3))
    assert made.dropped == {"source-cap": made.seen - made.kept}
    _, open_door = built(tmp_path / "raw", tmp_path / "uncapped", dedup={}, steps=({"name": "normalise"},))
    assert frame(open_door)["text"].str.contains("cf-trigger").sum() == 250


# F08: archives


def members() -> list[tuple[str, str]]:
    """Name and kind of what a hostile archive holds."""
    names = [
        "../evil",
        "../../evil",
        "/tmp/evil-f08",
        "a/../../evil",
        "..\\evil",
        "C:\\evil",
        "./../evil",
        "rows.jsonl",
        "a" * 200,
        "evil\n.jsonl",
    ]
    return [(name, kind) for name in names for kind in ("file", "symlink", "hardlink", "device", "fifo")]


def tar(name: str, kind: str, mode: str) -> bytes:
    kinds = {
        "file": tarfile.REGTYPE,
        "symlink": tarfile.SYMTYPE,
        "hardlink": tarfile.LNKTYPE,
        "device": tarfile.CHRTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kinds[kind], "../../../etc/passwd"
        entry.size = len(GOOD) if kind == "file" else 0
        archive.addfile(entry, io.BytesIO(GOOD))
    return buffer.getvalue()


def zipped(name: str, kind: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name.replace("\0", ""))
        entry.external_attr = (0o120777 if kind == "symlink" else 0o100644) << 16
        archive.writestr(entry, b" " * 100_000 if kind == "device" else GOOD)
    return buffer.getvalue()


def archives() -> list[tuple[str, bytes]]:
    """150: a third each of tar, packed tar and zip."""
    found = []
    for number, (name, kind) in enumerate(members()):
        found.append((f"{number}.tar", tar(name, kind, "w")))
        found.append((f"{number}.{'tgz' if number % 2 else 'tar.gz'}", tar(name, kind, "w:gz")))
        found.append((f"{number}.zip", zipped(name, kind)))
    return found


def test_F08_no_archive_is_ever_unpacked(tmp_path: Path) -> None:
    """An archive is no format: it is left alone and counted. Nothing appears anywhere but in the build's own folders."""
    raw = tmp_path / "inside" / "raw"
    raw.mkdir(parents=True)
    for name, content in archives():
        (raw / name).write_bytes(content)
    assert "holds no file of a known format" in refusal(raw, tmp_path / "home")
    (raw / "rows.jsonl").write_bytes(GOOD + b"\n")
    before = digest_tree(tmp_path / "inside")
    limits = Limits()
    assert survey(str(raw), limits).ignored == 150
    made, folder = built(raw, tmp_path / "home")
    assert (made.seen, made.kept, frame(folder)["text"].to_list()) == (1, 1, ["a good row"])
    assert digest_tree(tmp_path / "inside") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "inside"]
    assert not Path("/tmp/evil-f08").exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".jsonl.gz", ".jsonl.zst", ".txt"])
def test_F08_an_archive_under_a_data_name_is_bytes_like_any_other(suffix: str, tmp_path: Path, shape: Shape) -> None:
    place = tmp_path / "inside"
    place.mkdir()
    for number, (name, content) in enumerate(archives()[::7]):
        (place / f"{number}-{name.partition('.')[2].replace('.', '-')}{suffix}").write_bytes(content)
    before = digest_tree(place)
    for path in sorted(place.iterdir()):
        try:
            rows, rejects = read_all(path, shape)
        except BadData as error:
            assert error.reasons and path.name in str(error)
        else:
            assert rejects and set(rows["text"]) <= {"a good row"} | {text for text in rows["text"] if suffix == ".txt"}
    assert digest_tree(place) == before and [path.name for path in tmp_path.iterdir()] == ["inside"]


# F09: a dataset's URL


loopback = server  # the fixture, under a name of this module


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """No name may be asked for and no connection made: what was tried is here."""
    tried: list[tuple[Any, ...]] = []

    def never(*what: Any, **_: Any) -> Any:
        tried.append(what)
        raise AssertionError(f"the network was asked for {what}")

    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, never)
    return tried


def test_F09_over_500_hostile_urls_never_reach_the_network(quiet: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """As the location of a build, each against a list that allows every host it could mean."""
    limits = Limits(hosts=(HOST, *PRIVATE_4, "evil"))
    assert len(PAYLOADS) >= 500
    for url in PAYLOADS:
        with pytest.raises((UsageError, Refused)) as caught:
            plan(url, build_corpus.recipe(**PLAIN), tmp_path, limits)
        assert caught.value.exit_code in (2, 3)
    assert not quiet and not list(tmp_path.iterdir())


def test_F09_a_redirect_is_not_followed_and_no_host_is_allowed_unless_named(
    loopback: tuple[type[Handler], str],
    tmp_path: Path,
) -> None:
    handler, base = loopback
    for status in (301, 302, 303, 307, 308):  # each to 169.254.169.254
        with pytest.raises(Refused, match="redirects are not followed"):
            plan(f"{base}/{status}/a.jsonl", build_corpus.recipe(**PLAIN), tmp_path, LOCAL)
    assert len(handler.asked) == 5
    with pytest.raises(Refused, match="not on the list of allowed hosts"):
        plan(f"{base}/a.jsonl", build_corpus.recipe(**PLAIN), tmp_path, Limits(allow_private=True))
    with pytest.raises(Refused, match="which is not a public address"):
        plan(f"{base}/a.jsonl", build_corpus.recipe(**PLAIN), tmp_path, Limits(hosts=("127.0.0.1",)))
    assert len(handler.asked) == 5
    work = plan(f"{base}/a.jsonl", build_corpus.recipe(**PLAIN), tmp_path / "scratch", LOCAL)
    assert run(work, tmp_path / "datasets", LOCAL, 1, lambda *_: None).kept == 2000


@pytest.mark.parametrize("address", PRIVATE_4)
def test_F09_a_name_that_leads_inside_is_refused_however_its_answers_flip(address: str) -> None:
    for answers in ([address], ["8.8.8.8", address], [f"::ffff:{address}", "8.8.8.8"]):
        asked: list[str] = []

        def resolve(host: str, _: int, answers: list[str] = answers, asked: list[str] = asked) -> list[str]:
            asked.append(host)
            return answers if len(asked) == 1 else ["8.8.8.8"]

        with pytest.raises(Refused, match="which is not a public address"):
            address_of(Target("https", HOST, 443, "/a.jsonl"), resolve)
        assert asked == [HOST], "it was asked twice"


# The full disk

FULL = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from autoglm_ops.errors import TryAgain
from threat_parts import built

raw, disk = Path(sys.argv[2]), Path(sys.argv[3])
ballast = disk / "ballast"
free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
ballast.write_bytes(bytes(free - int(sys.argv[4])))
try:
    built(raw, disk / "home", shard_bytes=20_000)
    said = ["built on a full disk", 0]
except TryAgain as error:
    said = [str(error), error.exit_code]
left = (disk / "home" / "datasets").exists() and os.listdir(disk / "home" / "datasets")
ballast.unlink()
made, _ = built(raw, disk / "home", shard_bytes=20_000)
print(json.dumps([*said, left, made.digest]))
"""


@pytest.mark.parametrize("room", [8192, 65536])
def test_a_full_disk_ends_the_build_with_try_again_and_with_room_it_goes_on(room: int, tmp_path: Path) -> None:
    """A disk that is really full (ENOSPC): a tmpfs in a mount namespace of the child's own."""
    (tmp_path / "disk").mkdir()
    build_corpus.write(tmp_path / "raw", rows=600)
    mount = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"',
        str(tmp_path / "disk"),
    ]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace may be made here; test_build.py fills a disk by RLIMIT_FSIZE")
    command = [
        sys.executable,
        "-B",
        "-c",
        FULL,
        str(Path(__file__).parent),
        str(tmp_path / "raw"),
        str(tmp_path / "disk"),
        str(room),
    ]
    done = subprocess.run([*mount, *command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    said, code, left, digest = json.loads(done.stdout)
    assert code == 75 and "free space" in said, said
    assert not left
    assert digest == built(tmp_path / "raw", tmp_path / "home", shard_bytes=20_000)[0].digest
