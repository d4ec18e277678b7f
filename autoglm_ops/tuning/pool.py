"""Configurations to choose among: a fixed, evenly spread set of a space, so that a model can weigh them all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from autoglm_ops.tuning.moves import SIZE
from autoglm_ops.tuning.space import Space


class Pool:
    """`choices` and their features [n, d]. Rows that a study adds by itself (the present settings) come after them."""

    def __init__(self, space: Space, choices: Sequence[Mapping[str, Any]]) -> None:
        self.space = space
        self.choices: list[dict[str, Any]] = []
        self._rows: dict[frozenset[tuple[str, Any]], int] = {}
        self._features: list[tuple[float, ...]] = []
        for one in choices:
            self.row(one)
        self.offered = len(self.choices)

    @classmethod
    def of(cls, space: Space, seed: int, size: int = SIZE) -> Pool:
        """A scrambled Sobol sequence over the space."""
        places = qmc.Sobol(len(space.dimensions), rng=np.random.default_rng(seed)).random(size)
        return cls(space, [space.choose(row.tolist()) for row in places])

    @property
    def features(self) -> NDArray[np.float64]:
        return np.array(self._features)

    def row(self, choices: Mapping[str, Any]) -> int:
        """The row of a configuration; a new one when it was never seen."""
        key = frozenset(choices.items())
        if key not in self._rows:
            self._rows[key] = len(self.choices)
            self.choices.append(dict(choices))
            self._features.append(self.space.features(choices))
        return self._rows[key]
