"""Near-copies of held-out texts kept out of what is trained on (spec D7). Equal texts are on one side by construction, see `split`."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from autoglm_ops.contracts.data import Split
from autoglm_ops.data.dedup import Distinct
from autoglm_ops.data.flow import DOCUMENT
from autoglm_ops.data.split import Shares, Splits, side
from autoglm_ops.data.steps.contamination import Contamination, Protected
from autoglm_ops.data.tables import Sample

NEAR = 0.7  # of a text's 5-grams: a near-duplicate of Jaccard 0.8 shares at least 0.8, and short texts need room
NO_LONG = 2**31  # boilerplate alone (a hotel's answer to every guest) makes no near-copy
WORD = "near-held-out"


def apart(splits: Splits, distinct: Sequence[Distinct], shares: Shares) -> Splits:
    """Without the training and validation rows of whose word 5-grams (CJK: characters) a share of NEAR stands in held-out texts.

    All held-out texts among `distinct` count, of whatever day: a later gate will ask them. What went is counted as `near-held-out`.
    """
    held = [item.first.text for item in distinct if side(item.key, shares) == "gate"]
    step = Contamination(Protected.of([pl.Series(held, dtype=pl.String)]), min_long=NO_LONG, max_share=NEAR)
    asked: tuple[Split, ...] = ("train", "validation")
    kept = {name: _kept(splits.samples[name], step) for name in asked}
    gone = sum(len(splits.samples[name]) - len(kept[name]) for name in asked)
    return Splits({**splits.samples, **kept}, {**splits.dropped, WORD: gone}, splits.days, splits.gate_days)


def _kept(rows: Sequence[Sample], step: Contamination) -> list[Sample]:
    columns = {name: [None] * len(rows) for name in DOCUMENT if name not in ("text", "line")}
    frame = pl.DataFrame({"text": [row.text for row in rows], "line": range(len(rows)), **columns}, schema=DOCUMENT)
    return [rows[line] for line in step(frame).kept["line"]]
