"""Personal data masked in place: e-mail and IP addresses, telephone, identity and card numbers, each by a word such as <EMAIL>."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import polars as pl

from autoglm_ops.data.flow import DROPPED, Sifted
from autoglm_ops.data.steps.options import options

Kind = Literal["email", "ip", "id", "card", "phone"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# What a line must have to be looked at closely: an address, four dotted numbers, hex groups with colons, ten digits close together, or
# an international prefix. polars' own regular expressions find it at hundreds of MB/s, the close look costs a thousand times more.
_MAYBE = (
    r"[A-Za-z0-9_%+-]@[A-Za-z0-9-]+\.[A-Za-z]|[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[0-9](?:[ .()-]{0,2}[0-9]){9}"
    r"|(?:\+|00)[0-9]{1,3}[ .(-]{0,2}[0-9]|[0-9A-Fa-f]::|::[0-9A-Fa-f]|[0-9A-Fa-f]:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]"
)
# Every repetition is bounded and every start is anchored by what may not stand before it: no text makes the search slow.
_PATTERN = re.compile(
    r"""
    (?P<email>(?<![\w.+%-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-]))
    |(?P<ip>(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])))
    |(?P<id>(?<![0-9A-Za-z])[1-9]\d{16}[0-9Xx](?![0-9A-Za-z]))
    |(?P<card>(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]))
    |(?P<phone>(?<![\w.-])(?:(?:\+|00)\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,3}
        |1[3-9]\d[ -]?\d{4}[ -]?\d{4}|0\d{2,3}-\d{7,8}|\(\d{3}\)[ ]?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4})(?![\w-]))
    """,
    re.VERBOSE | re.ASCII,
)


@options
class Pii:
    """Masks and never drops. `masked` counts what it did."""

    kinds: tuple[Kind, ...] = KINDS

    name: ClassVar[str] = "pii"

    def __call__(self, frame: pl.DataFrame) -> Sifted:
        texts = frame["text"]
        places = texts.str.contains(_MAYBE).fill_null(False).arg_true()
        lines = pl.DataFrame({"place": places, "line": texts.gather(places).str.split("\n")}).explode("line")
        near = lines["line"].str.contains(_MAYBE).arg_true()
        masks = pl.Series([mask(line, self.kinds) for line in lines["line"].gather(near)], dtype=pl.String)
        changed = lines.with_columns(lines["line"].scatter(near, masks))
        whole = changed.group_by("place", maintain_order=True).agg(pl.col("line").str.join("\n"))
        return Sifted(frame.with_columns(texts.scatter(whole["place"], whole["line"])), pl.DataFrame(schema=DROPPED))


def mask(text: str, kinds: tuple[str, ...] = KINDS) -> str:
    """`text` with `<EMAIL>`, `<IP>`, `<ID>`, `<CARD>` and `<PHONE>` for what is one.

    An IP address must parse; a Chinese resident id (18 places, GB 11643) and a card number (13 to 19, ISO/IEC 7812) must have the
    right check digit, so that order numbers and long decimals stay.
    """

    def replaced(found: re.Match[str]) -> str:
        kind = found.lastgroup or ""
        return f"<{kind.upper()}>" if kind in kinds and _CHECKS[kind](found[0]) else found[0]

    return _PATTERN.sub(replaced, text)


def masked(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, int]:
    """How many of each kind the step masked: frames before and after it, row by row the same documents."""
    counts: dict[str, int] = {}
    for kind in KINDS:
        here, there = (frame["text"].str.count_matches(f"<{kind.upper()}>", literal=True).sum() for frame in (before, after))
        counts[kind] = int(there) - int(here)
    return counts


def is_card(number: str) -> bool:
    """Luhn's check over the digits of `number` (ISO/IEC 7812-1, annex B); a row of one digit is none."""
    digits = [int(char) for char in number if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_resident_id(number: str) -> bool:
    """The check place and the birth date of a Chinese resident id (GB 11643-1999: ISO 7064, MOD 11-2)."""
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(number[:17]))
    right = "10X98765432"[total % 11] == number[17].upper()
    return right and 1900 <= int(number[6:10]) <= 2100 and 1 <= int(number[10:12]) <= 12 and 1 <= int(number[12:14]) <= 31


def _is_ip(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == 4 or sum(map(bool, text.split(":"))) > 2


_CHECKS: dict[str, Callable[[str], bool]] = {
    "email": lambda _: True,
    "ip": _is_ip,
    "id": is_resident_id,
    "card": is_card,
    "phone": lambda _: True,
}
