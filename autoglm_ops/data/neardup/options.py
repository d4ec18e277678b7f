"""What a near-duplicate is, and how much memory a task may take."""

from __future__ import annotations

from dataclasses import dataclass

from autoglm_ops.errors import SettingsError


@dataclass(frozen=True)
class Options:
    """A pair of similarity s becomes a candidate with probability 1 - (1 - s**rows)**bands: 0.998 at 0.8, 0.9996 at 0.85, 0.06 at
    0.4 with the defaults (Leskovec et al., Mining of Massive Datasets, 3.4); candidates below `threshold` are then put aside.
    """

    threshold: float = 0.8
    """Least Jaccard similarity of two sets of shingles."""
    ngram: int = 5
    """Words per shingle, as in datatrove and FineWeb. A CJK character is a word; case, space and punctuation do not count."""
    bands: int = 20
    rows: int = 6
    """Hashes per band."""
    seed: int = 1
    memory: int = 256 << 20
    """Bytes a task may take for its arrays, beside the interpreter (about 150 MB)."""

    def __post_init__(self) -> None:
        for name, low, high in (("threshold", 0, 1), ("ngram", 1, 100), ("bands", 1, 1000), ("rows", 1, 100)):
            if not low <= getattr(self, name) <= high:
                raise SettingsError(f"dedup.{name} = {getattr(self, name)} must be between {low} and {high}, both included")
        if wrong := [name for name in ("ngram", "bands", "rows", "seed", "memory") if not isinstance(getattr(self, name), int)]:
            raise SettingsError(f"dedup.{wrong[0]} = {getattr(self, wrong[0])!r} must be a whole number")
        if self.memory < 1 << 20:
            raise SettingsError(f"dedup.memory = {self.memory} bytes must be at least 1 MiB (1048576)")
