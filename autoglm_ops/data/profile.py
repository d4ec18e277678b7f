"""What is in a location, before anyone spends an hour on it: rows, lengths, languages, repeats, labels, personal data, bad lines."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

import numpy as np
import polars as pl

from autoglm_ops.contracts.flow import LocationProfile
from autoglm_ops.data.readers import Rejected
from autoglm_ops.data.steps.language import detect
from autoglm_ops.data.steps.pii import Pii, masked

SAMPLE = 2000  # texts looked at closely (language, personal data): a share is then known to 2.2 points at 95 %
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
SHOWN = 20  # sources, labels and languages listed; the rest is summed up


def profile(items: Iterable[pl.DataFrame | Rejected], files: int, ignored: int, size: int, seed: int) -> LocationProfile:
    """Over what the readers yield. All rows are counted and hashed (16 bytes each); a sample drawn by hash is looked at closely."""
    seen = _Seen(seed)
    for item in items:
        if isinstance(item, Rejected):
            seen.rejected[item.reason] += 1
        else:
            seen.add(item)
    sample = seen.sample
    lengths = np.concatenate(seen.lengths) if seen.lengths else np.zeros(0, np.int64)
    languages = Counter(detect(sample["text"])["language"].to_list())
    after, _ = Pii()(sample)
    return LocationProfile(
        files=files,
        ignored=ignored,
        bytes=size,
        rows=len(lengths),
        rejected=dict(sorted(seen.rejected.items())),
        lengths={f"{share:g}": int(value) for share, value in zip(QUANTILES, _quantiles(lengths), strict=True)},
        repeated=len(lengths) - len(seen.hashes),
        empty=int((lengths == 0).sum()),
        sample=sample.height,
        languages=_top(languages),
        personal={kind: count for kind, count in masked(sample, after).items() if count},
        labels=_top(seen.labels),
        sources=_top(seen.sources),
        days=(seen.first, seen.last),
    )


class _Seen:
    def __init__(self, seed: int) -> None:
        self._salt = seed.to_bytes(8, "big")
        self.rejected: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.lengths: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
        self.hashes: set[bytes] = set()
        self.first: str | None = None
        self.last: str | None = None
        self.sample = pl.DataFrame(schema={"key": pl.Binary, "text": pl.String})

    def add(self, frame: pl.DataFrame) -> None:
        texts = frame["text"].fill_null("")
        self.lengths.append(texts.str.len_chars().cast(pl.Int64).to_numpy())
        keys = [hashlib.blake2b(text.encode(), digest_size=16, key=self._salt).digest() for text in texts]
        self.hashes.update(keys)
        self.labels.update(dict(frame["label"].drop_nulls().value_counts().iter_rows()))
        self.sources.update(dict(frame["source"].fill_null("").value_counts().iter_rows()))
        days = frame["timestamp"].drop_nulls()
        if len(days):
            low, high = str(days.min()), str(days.max())
            self.first, self.last = min(self.first or low, low), max(self.last or high, high)
        drawn = pl.DataFrame({"key": keys, "text": texts}, schema=self.sample.schema)
        self.sample = pl.concat([self.sample, drawn]).unique("key", keep="first", maintain_order=True).sort("key").head(SAMPLE)


def _quantiles(lengths: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[float]:
    return [float(value) for value in np.quantile(lengths, QUANTILES)] if len(lengths) else [0.0] * len(QUANTILES)


def _top(counts: Counter[str]) -> dict[str, int]:
    shown = dict(counts.most_common(SHOWN))
    rest = counts.total() - sum(shown.values())
    return {**shown, "(others)": rest} if rest else shown
