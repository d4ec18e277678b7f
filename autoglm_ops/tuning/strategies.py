"""The strategies of `tune.strategy` by name. Other packages offer theirs through the entry point group `autoglm.strategies`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoglm_ops.catalog import Catalog
from autoglm_ops.tuning.master import Cost, TuneMaster
from autoglm_ops.tuning.moves import PAUSING, Strategy, ladder
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.space import Space
from autoglm_ops.tuning.transfer import Earlier

STRATEGIES = Catalog(
    "tune.strategy",
    {
        "random": "autoglm_ops.tuning.samplers:random",
        "grid": "autoglm_ops.tuning.samplers:grid",
        "tpe": "autoglm_ops.tuning.samplers:tpe",
        "gp": "autoglm_ops.tuning.samplers:gp",
        "hyperband": "autoglm_ops.tuning.samplers:hyperband",
        "halving": "autoglm_ops.tuning.halving:halving",
        "tunemaster": "autoglm_ops.tuning.strategies:tunemaster",
    },
    "autoglm.strategies",
)
FACTOR = 3.0


def make(
    name: str,
    space: Space,
    rungs: Sequence[int],
    *,
    seed: int,
    first: Sequence[Mapping[str, Any]] = (),
    earlier: Sequence[Earlier] = (),
    cost: Cost | None = None,
) -> Strategy:
    """The strategy called `name`. Raises UsageError that names the nearest known one."""
    factory = STRATEGIES.get(name)
    more: dict[str, Any] = {"first": first}
    if name == "tunemaster":
        more |= {"earlier": earlier} | ({"cost": cost} if cost else {})
    strategy: Strategy = factory(space, rungs, seed=seed, **more)
    return strategy


def tunemaster(space: Space, rungs: Sequence[int], *, seed: int, **more: Any) -> TuneMaster:
    """Freeze-thaw by a learning-curve model; see `master`."""
    return TuneMaster(Pool.of(space, seed), rungs, seed=seed, **more)


def rungs_of(name: str, steps: int, looks: int) -> tuple[int, ...]:
    """The steps after which a strategy's trials are scored."""
    return ladder(steps, looks, FACTOR if name in PAUSING else 1.0)
