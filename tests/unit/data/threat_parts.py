"""What the tests of threats F01 to F09 share: a whole build whose every document is accounted for, and one that is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import build_corpus
import polars as pl
import pytest

from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.data.build.finish import load
from autoglm_ops.data.build.plan import plan
from autoglm_ops.data.build.whole import run
from autoglm_ops.data.readers import Limits
from autoglm_ops.errors import BadData

PLAIN: dict[str, Any] = {"steps": (), "dedup": None, "shard_bytes": 30_000_000}
GOOD = b'{"text": "a good row"}'


def built(raw: Path, home: Path, limits: Limits | None = None, **recipe: Any) -> tuple[BuiltDataset, Path]:
    """A whole build, whose every document is accounted for."""
    limits = limits or Limits()
    work = plan(str(raw), build_corpus.recipe(**{**PLAIN, **recipe}), home / "scratch", limits)
    made = run(work, home / "datasets", limits, 1, lambda *_: None)
    assert made.seen == made.kept + sum(made.dropped.values()) + sum(made.quarantined.values())
    assert made.kept == sum(part.rows for part in made.parts)
    return made, home / "datasets" / made.digest


def rejected(folder: Path) -> list[tuple[int, str]]:
    """Line and reason of every quarantined row."""
    found = [json.loads(line) for line in (folder / "_rejected.jsonl").read_bytes().split(b"\n") if line]
    return [(item["line"], item["reason"]) for item in found]


def frame(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(folder / part.name) for part in load(folder).parts])


def refusal(raw: Path, home: Path, limits: Limits | None = None) -> str:
    """What a build says that ends with exit code 3; nothing is published."""
    with pytest.raises(BadData) as caught:
        built(raw, home, limits)
    assert caught.value.exit_code == 3
    assert not (home / "datasets").exists()
    return str(caught.value)


def lines_of(name: str) -> bytes:
    """About a thousand lines as each format has them: LF and CRLF, U+2028 inside, quotes over lines."""
    if name == "a.csv":
        return b"text,label\n" + b"".join(b'"r%d\n",x\nq%d,y\n' % (n, n) for n in range(330))
    if name == "a.txt":
        return b"".join((b"r%d\r\n" if n % 2 else b"r%d\xe2\x80\xa8s\n") % n for n in range(1000))
    return b"".join((b'{"text":"%d"}\r\n' if n % 2 else b'{"text":"\xe2\x80\xa8%d"}\n') % n for n in range(1000))
