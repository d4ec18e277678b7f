"""A small dirty corpus for tests of the build: plain, packed and broken files with copies, near-copies and planted reasons."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

from autoglm_ops.contracts.flow import Recipe, StepSpec

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "seven",
    "wizards",
    "brew",
    "very",
    "strong",
    "coffee",
    "near",
    "old",
    "harbour",
    "walls",
    "and",
    "sing",
    "of",
    "ships",
    "that",
    "left",
    "before",
    "winter",
    "with",
    "maps",
    "no",
    "captain",
    "could",
    "read",
    "because",
    "every",
    "island",
    "moved",
    "at",
    "night",
]


def recipe(**changes: object) -> Recipe:
    columns = {name: name for name in ("text", "label", "timestamp", "id", "source")}
    made = {"columns": columns, "epoch": "2026-01-01", "steps": (StepSpec(name="normalise"),), "shard_bytes": 40_000}
    return Recipe.model_validate({**made, **changes})


def sentence(draw: random.Random, words: int = 60) -> str:
    return " ".join(draw.choice(WORDS) + str(draw.randrange(50)) for _ in range(words))


def write(folder: Path, rows: int = 300, seed: int = 3) -> dict[str, int]:
    """Four files. Returns what was planted: rows, copies, near-copies, broken lines, empty texts."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    texts = [sentence(draw) for _ in range(rows)]
    copies = [draw.choice(texts) for _ in range(rows // 10)]
    near = [text.rsplit(" ", 1)[0] + " end" for text in texts[: rows // 10]]
    lines = [json.dumps({"text": text, "source": f"s{number % 3}"}) for number, text in enumerate([*texts, *copies, *near])]
    lines += ['{"text": broken', '{"text": "   "}']
    draw.shuffle(lines)
    quarter = len(lines) // 4
    (folder / "a.jsonl").write_text("\n".join(lines[:quarter]) + "\n", encoding="utf-8")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(("\n".join(lines[quarter : 2 * quarter]) + "\n").encode(), mtime=0))
    (folder / "c.jsonl").write_text("\n".join(lines[2 * quarter :]) + "\n", encoding="utf-8")
    return {"seen": len(lines), "duplicate": len(copies), "near-duplicate": len(near), "bad-json": 1, "empty": 1, "kept": rows}
