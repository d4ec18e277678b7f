"""Duplicates and near-duplicates in a corpus of any size, in phases that each run alone, as mapped tasks or one after the other.

    sign(shard)        texts -> content hash, MinHash band keys and shingles      one task a shard
    match(partition)   sorted keys -> exact copies, and pairs to look at          one task a range of keys
    verify(shard)      pairs -> those whose Jaccard similarity really is enough   one task a shard
    settle()           which rows go, and for which kept row                      one task, a byte a document

A document is dropped only for a *kept* earlier one that it was compared with: shingle by shingle (`near-duplicate`), or all bytes by
a 128-bit BLAKE2 hash (`duplicate`). Clusters are therefore stars. Clusters by transitive closure (union-find over the same pairs)
would also drop C for A when A~B and B~C, and in templated text such chains swallow documents that have little in common.

What comes out depends on the order of the shards and their rows alone: not on `memory`, the number of partitions, or who ran a phase.

Measured by `tests/benchmarks/bench_data.py` on one shared core: filters and near-dedup of 100 MB of manuals and docstrings at 27 MB/s, 14.2 times
datatrove 0.10.1 (95 %: 13.3 to 15.3) with the same filter decision on each of 25,696 documents; recall 1.00 of 108 planted pairs at
Jaccard 0.80 to 0.85 (datatrove 0.98), precision 0.995. Signing alone runs at 130 MB/s. Peak memory with `memory` at 64 MiB: 343 MB
for 100,000 documents, 354 MB for 1,000,000.
"""
