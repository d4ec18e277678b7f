"""With prepare.near_copies = drop nothing that is trained on is nearly a held-out text; the gate's rows stay as they were."""

from __future__ import annotations

from autoglm_ops.data.apart import WORD, apart
from autoglm_ops.data.dedup import dedup
from autoglm_ops.data.rows import Row
from autoglm_ops.data.split import Shares, side, split

SHARES = Shares(holdout=0.3, validation=0.2, gate_days=3, window_days=0)


def rows(texts: list[str]) -> list[Row]:
    return [Row(f"r{n}", text, "ab"[n % 2], f"2026-01-0{1 + n % 3}", "s", n) for n, text in enumerate(texts)]


def unlike(number: int) -> str:
    """Texts that share nothing with one another."""
    return "".join(chr(0x4E00 + number * 40 + place) for place in range(30))


def test_near_copies_of_held_out_texts_go_and_nothing_else_does() -> None:
    alone = [unlike(n) for n in range(200)]
    held = [text for text in alone if side(text, SHARES) == "gate"]
    near = [text + "啊" for text in held]
    distinct, _ = dedup(rows([*alone, *near]))
    before = split(distinct, SHARES)
    after = apart(before, distinct, SHARES)
    trained = {row.text for name in ("train", "validation") for row in after.samples[name]}
    assert trained == {text for text in alone if side(text, SHARES) != "gate"}
    gone = [text for text in near if side(text, SHARES) != "gate"]
    assert after.dropped[WORD] == len(gone) > 5
    assert after.samples["gate"] == before.samples["gate"]


def test_order_is_kept_and_where_there_is_none_nothing_goes() -> None:
    distinct, _ = dedup(rows([unlike(n) for n in range(120)]))
    before = split(distinct, SHARES)
    after = apart(before, distinct, SHARES)
    assert after.samples == before.samples and after.dropped[WORD] == 0


def test_texts_shorter_than_a_shingle_do_not_fall_over() -> None:
    distinct, _ = dedup(rows(["好", "", "a", *[unlike(n) for n in range(60)]]))
    assert apart(split(distinct, SHARES), distinct, SHARES).samples["gate"]
