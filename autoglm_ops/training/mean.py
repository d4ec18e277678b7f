"""The mean of the weights of a run's last steps, which is what gets published (Izmailov et al. 2018, arXiv:1803.05407).

Single steps end where the last batches pulled them; their mean lies in the middle of where they wander, and answers texts of a kind it
has seen little of with less chance in it. It is made as the run goes, one snapshot after the other, so that a checkpoint holds it.
"""

from __future__ import annotations

from autoglm_ops.training.progress import Weights
from autoglm_ops.training.recipe import Recipe


def count(recipe: Recipe, step: int) -> int:
    """How many snapshots have been taken by the end of `step`."""
    return sum(mark <= step for mark in recipe.averaged)


def first(recipe: Recipe, step: int) -> int:
    """The step of the first snapshot; 0 where none has been taken by the end of `step`."""
    return recipe.averaged[0] if count(recipe, step) else 0


def taken(mean: Weights, newest: Weights, number: int) -> Weights:
    """The mean of `number` snapshots, of `mean` over those before and `newest`; whole numbers are the newest's.

    It is made in `newest`, so that it costs no memory; `mean` stays as it is, which a checkpoint may still be writing.
    """
    for name, tensor in newest.items():
        if number > 1 and tensor.is_floating_point():
            tensor.lerp_(mean[name], 1 - 1 / number)
    return newest
