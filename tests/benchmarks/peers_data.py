"""What `bench_data` runs in the peers' own environment: `python peers_data.py PEER CORPUS KEPT OUT` prints one JSON line.

PEER is datatrove (reads CORPUS, filters, near-dedups, writes), datasketch, rensa or rensa-rho (near-dedup of KEPT, a Parquet file).
In OUT it leaves `filtered.json` (ids kept by the filters) and `gone.json` (ids dropped as near-duplicates).
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path

WORD = re.compile(r"\w+")
SENTENCE = re.compile(r"[.?!。！？][.?!。！？\"')\]”’]*(?=\s|$)")


def datatrove(corpus: Path, out: Path) -> None:
    """Its own reader, filters, writers and four MinHash stages in one process. White-space words: cheaper for it than its default."""
    from datatrove.pipeline.dedup import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.filters import C4QualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.readers import JsonlReader, ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.word_tokenizers import WordTokenizer
    from loguru import logger

    class Plain(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text[begin:end].strip() for begin, end in self.span_tokenize(text)]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            ends = [found.end() for found in SENTENCE.finditer(text)]
            if text[ends[-1] if ends else 0 :].strip():
                ends.append(len(text))
            return list(zip([0, *ends], ends, strict=False))

    logger.remove()
    words, config = Plain("plain"), MinhashConfig()
    started = time.process_time()
    docs: Iterable = JsonlReader(str(corpus.parent), glob_pattern=corpus.name)(None, 0, 1)
    for step in (GopherQualityFilter(language=words), GopherRepetitionFilter(language=words), C4QualityFilter(language=words)):
        docs = step(docs, 0, 1)
    kept = []
    with ParquetWriter(str(out / "kept")) as writer:
        for doc in docs:
            writer.write(doc)
            kept.append(doc.id)
    filtered = time.process_time()
    MinhashDedupSignature(str(out / "sigs"), config, language=words).run(ParquetReader(str(out / "kept"))(None, 0, 1), 0, 1)
    for bucket in range(config.num_buckets):
        MinhashDedupBuckets(str(out / "sigs"), str(out / "dups"), config=config).run(None, bucket, config.num_buckets)
    MinhashDedupCluster(str(out / "dups"), str(out / "remove"), config=config).run(None, 0, 1)
    left = set()
    with ParquetWriter(str(out / "final")) as writer:
        for doc in MinhashDedupFilter(str(out / "remove")).run(ParquetReader(str(out / "kept"))(None, 0, 1), 0, 1):
            writer.write(doc)
            left.add(doc.id)
    finish(out, {"filters": filtered - started, "dedup": time.process_time() - filtered}, kept, set(kept) - left)


def read(kept: Path) -> tuple[list[str], list[str]]:
    import pyarrow.parquet as pq

    table = pq.read_table(kept, columns=["id", "text"])
    return table.column("id").to_pylist(), table.column("text").to_pylist()


def grams(text: str) -> set[str]:
    words = WORD.findall(text.lower())
    return {" ".join(words[n : n + 5]) for n in range(max(1, len(words) - 4))}


def datasketch(kept: Path, out: Path) -> None:
    """MinHash of 128 permutations in bulk, and its LSH at 0.8 with the weights that its documentation gives for recall."""
    from datasketch import MinHash, MinHashLSH

    started = time.process_time()
    ids, texts = read(kept)
    index, gone = MinHashLSH(threshold=0.8, num_perm=128, weights=(0.1, 0.9)), set()
    for name, text in zip(ids, texts, strict=True):
        sketch = MinHash(num_perm=128)
        sketch.update_batch([gram.encode() for gram in grams(text)])
        if any(found.jaccard(sketch) >= 0.8 for found in map(SKETCHES.get, index.query(sketch))):
            gone.add(name)
        else:
            index.insert(name, sketch, check_duplication=False)
            SKETCHES[name] = sketch
    finish(out, {"dedup": time.process_time() - started}, ids, gone)


SKETCHES: dict = {}


def rensa(kept: Path, out: Path) -> None:
    """Its full-set sketch in the streaming deduplicator, 128 slots at 0.8."""
    from rensa import RMinHashDeduplicator

    started = time.process_time()
    ids, texts = read(kept)
    fresh = RMinHashDeduplicator(threshold=0.8, num_perm=128, use_lsh=True, num_bands=16).add_pairs(
        (name, grams(text)) for name, text in zip(ids, texts, strict=True)
    )
    finish(out, {"dedup": time.process_time() - started}, ids, {name for name, new in zip(ids, fresh, strict=True) if not new})


def rensa_rho(kept: Path, out: Path) -> None:
    """Its rho pipeline, the one of its published figures: 128 slots, 8 bands, 0.8."""
    from rensa import RMinHash, RMinHashLSH

    started = time.process_time()
    ids, texts = read(kept)
    sketches = RMinHash.digest_matrix_from_token_sets_rho([list(grams(text)) for text in texts], num_perm=128, seed=42)
    flags = RMinHashLSH(threshold=0.8, num_perm=128, num_bands=8).query_duplicate_flags_matrix_one_shot(sketches)
    finish(out, {"dedup": time.process_time() - started}, ids, {name for name, flag in zip(ids, flags, strict=True) if flag})


def finish(out: Path, seconds: dict[str, float], kept: list[str], gone: set[str]) -> None:
    (out / "filtered.json").write_text(json.dumps(kept), encoding="utf-8")
    (out / "gone.json").write_text(json.dumps(sorted(gone)), encoding="utf-8")
    print(json.dumps({**seconds, "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    peer, corpus, kept, out = sys.argv[1], *map(Path, sys.argv[2:5])
    if peer == "datatrove":
        datatrove(corpus, out)
    else:
        {"datasketch": datasketch, "rensa": rensa, "rensa-rho": rensa_rho}[peer](kept, out)
