"""Several examples in one row, kept apart by their positions; or one a row, padded, where a model cannot keep them apart.

Padding is work for nothing: instruction data is mostly short, and a batch is as wide as its longest row. In a packed row positions start
at 0 with each example, and no attention mask is given: transformers then makes the mask block-diagonal (masking_utils,
`find_packed_sequence_indices`). Whether a model does so is measured, not believed: see `keeps_apart`.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.errors import BadData
from autoglm_ops.training import segments
from autoglm_ops.training.batch import MULTIPLE
from autoglm_ops.training.instructions import Example
from autoglm_ops.training.objective import IGNORED

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""How far logits may differ between an example alone and in a packed row, as a share of their own size: fp32 sums in another order."""
HALF = 6
"""Tokens of each of the two examples that `keeps_apart` tries."""


def pack(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Places of `lengths` in bins of at most `width`, best-fit decreasing: at most 11/9 of the fewest bins, and four (Johnson et al. 1974).

    Raises BadData when one alone is longer than `width`.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, bin), sorted
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if lengths[place] > width:
            raise BadData(
                f"example {place} has {lengths[place]} tokens and a row takes {width}; cut it when it is encoded", ("too-long",)
            )
        at = bisect_left(rooms, (lengths[place], -1))
        left, number = rooms.pop(at) if at < len(rooms) else (width, len(bins))
        if number == len(bins):
            bins.append([])
        bins[number].append(place)
        insort(rooms, (left - lengths[place], number))
    return bins


def packs(module: Any, vocabulary: int) -> bool:
    """Make `module` ready for packed rows, and say whether it `keeps_apart` what they hold."""
    segments.use(module)
    return keeps_apart(module, vocabulary)


def keeps_apart(module: Any, vocabulary: int) -> bool:
    """Whether `module` answers in a packed row as it does alone: tried with two short random examples, without gradients.

    Each example's logits must not move by one bit when the other is exchanged (a masked score has a weight of exactly 0), and must be
    those it has in a row of its own.
    """
    random = np.random.default_rng(0)
    ids, others = (torch.from_numpy(random.integers(0, vocabulary, (2, HALF))) for _ in range(2))
    positions = torch.arange(HALF).repeat(2, 1)
    device = next(module.parameters()).device
    was = module.training
    module.eval()
    try:
        with torch.no_grad():
            apart = _logits(module, ids, positions, device)
            packed, first, second = (
                _logits(module, torch.stack(rows).reshape(1, -1), positions.reshape(1, -1), device).reshape(apart.shape)
                for rows in ((ids[0], ids[1]), (ids[0], others[1]), (others[0], ids[1]))
            )
    except TypeError:  # a forward that takes no positions
        return False
    finally:
        module.train(was)
    alone = bool((apart - packed).abs().max() <= TOLERANCE * apart.abs().max())
    return alone and torch.equal(packed[0], first[0]) and torch.equal(packed[1], second[1])


def _logits(module: Any, ids: torch.Tensor, positions: torch.Tensor, device: torch.device) -> torch.Tensor:
    extra = {"use_cache": False} if hasattr(getattr(module, "config", None), "use_cache") else {}
    out: torch.Tensor = module(input_ids=ids.to(device), position_ids=positions.to(device), **extra).logits
    return out.float().cpu()


class ExampleLoader:
    """Batches of examples for AutoGLMTrainer: dicts of int64 tensors [batch_size, width].

    Packed: `input_ids`, `labels`, `position_ids`; rows of at most `width` tokens, filled up to the fullest with pads in a segment of
    their own. Padded: `input_ids`, `labels`, `attention_mask`, as wide as the longest row. `packed` says which: with a
    `module` that keeps examples apart, packed; without a module, or with one that does not (it is said in the log), padded. With `shuffle`, which examples share a row is settled once and the order of rows is a function of the seed and the epoch.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        batch_size: int,
        width: int,
        pad_id: int,
        module: Any = None,
        shuffle: bool = True,
        seed: int = 7,
    ) -> None:
        self._examples, self._size, self._width, self._pad = examples, batch_size, width, pad_id
        self._shuffle, self._seed, self._epoch = shuffle, seed, 0
        self.packed = module is not None and packs(module, _vocabulary(examples))
        if module is not None and not self.packed:
            log.warning("%s does not keep packed examples apart: each gets a padded row of its own", type(module).__name__)
        lengths = [len(example) for example in examples]
        self._rows = pack(lengths, width) if self.packed else [[place] for place in range(len(examples))]

    @property
    def filled(self) -> float:
        """Share of the tokens of all rows that are no padding, at the width a packed row has."""
        return sum(map(len, self._examples)) / (len(self._rows) * self._width)

    def __len__(self) -> int:
        return -(-len(self._rows) // self._size)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        order = np.arange(len(self._rows))
        if self._shuffle:
            order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._rows))
        for at in range(0, len(order), self._size):
            rows = [[self._examples[place] for place in self._rows[row]] for row in order[at : at + self._size]]
            yield _packed(rows, self._pad) if self.packed else _padded([row[0] for row in rows], self._pad)


def _packed(rows: Sequence[Sequence[Example]], pad_id: int) -> dict[str, torch.Tensor]:
    width = -(-max(sum(map(len, row)) for row in rows) // MULTIPLE) * MULTIPLE
    ids, labels, positions = _blank(len(rows), width, pad_id)
    for row, examples in enumerate(rows):
        at = 0
        for example in examples:
            end = at + len(example)
            ids[row, at:end], labels[row, at:end] = example.ids, example.labels
            labels[row, at] = IGNORED  # its predecessor in the row is another example's last token
            positions[row, at:end] = np.arange(len(example))
            at = end
        positions[row, at:] = np.arange(width - at)
    return {
        name: torch.from_numpy(part) for name, part in (("input_ids", ids), ("labels", labels), ("position_ids", positions))
    }


def _padded(rows: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    width = -(-max(map(len, rows)) // MULTIPLE) * MULTIPLE
    ids, labels, mask = _blank(len(rows), width, pad_id)
    for row, example in enumerate(rows):
        ids[row, : len(example)], labels[row, : len(example)] = example.ids, example.labels
        mask[row, : len(example)] = 1
    return {name: torch.from_numpy(part) for name, part in (("input_ids", ids), ("labels", labels), ("attention_mask", mask))}


def _blank(rows: int, width: int, pad_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    return (
        np.full((rows, width), pad_id, np.int64),
        np.full((rows, width), IGNORED, np.int64),
        np.zeros((rows, width), np.int64),
    )


def _vocabulary(examples: Sequence[Example]) -> int:
    return max(int(example.ids.max()) for example in examples) + 1
