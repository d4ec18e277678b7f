"""However a global batch is cut into micro-batches and ranks, its gradient is the whole batch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.errors import BadData
from autoglm_ops.training.batch import Batch, DictBatch
from autoglm_ops.training.objective import IGNORED, CausalLM, Classification, Objective, mean_items

WIDTH, CLASSES = 6, 5


def gradient(objective: Objective, table: torch.Tensor, ranks: list[list[DictBatch]]) -> torch.Tensor:
    """What engines compute: a mean over micro-batches, then over ranks."""
    total = np.sum([objective.items(batch) for batches in ranks for batch in batches], dtype=float)
    weights = table.clone().requires_grad_()
    for batches in ranks:
        items = mean_items(objective, batches, len(ranks), lambda _: np.array([total]))
        for batch in batches:
            loss = objective.loss(weights[batch.given["input_ids"]], batch, items)
            torch.autograd.backward(loss / (len(batches) * len(ranks)))
    assert weights.grad is not None
    return weights.grad


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    ranks=st.sampled_from([1, 2, 3]),
    micro=st.sampled_from([1, 2, 4]),
    smoothing=st.sampled_from([0.0, 0.1]),
)
def test_tokens_count_alike_in_every_micro_batch_and_rank(seed: int, ranks: int, micro: int, smoothing: float) -> None:
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, CLASSES, (24, WIDTH), generator=random)
    labels = ids.masked_fill(torch.rand(24, WIDTH, generator=random) < torch.rand(24, 1, generator=random), IGNORED)
    labels[0] = ids[0]
    table = torch.randn(CLASSES, CLASSES, generator=random)
    objective = CausalLM(smoothing)
    parts = [DictBatch({"input_ids": ids[part]}, labels[part]) for part in torch.arange(24).chunk(ranks * micro)]
    cut = [parts[rank::ranks] for rank in range(ranks)]
    whole = gradient(objective, table, [[DictBatch({"input_ids": ids}, labels)]])
    assert torch.allclose(gradient(objective, table, cut), whole, atol=1e-6)


def test_the_loss_is_torchs_own_over_shifted_labels() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, WIDTH, CLASSES, generator=random)
    labels = torch.randint(0, CLASSES, (3, WIDTH), generator=random).masked_fill(
        torch.rand(3, WIDTH, generator=random) < 0.4, IGNORED
    )
    batch, objective = DictBatch({}, labels), CausalLM()
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, CLASSES), labels[:, 1:].reshape(-1))
    assert objective.loss(logits, batch, objective.items(batch)).item() == pytest.approx(expected.item(), abs=1e-6)


def test_equal_batches_of_rows_leave_the_mean_as_it_is_bit_for_bit() -> None:
    random = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, CLASSES, generator=random), torch.randint(0, CLASSES, (7,), generator=random)
    batch, objective = DictBatch({}, labels), Classification(0.1)
    items = mean_items(objective, [batch, batch], 2, lambda values: values * 2)
    assert torch.equal(
        objective.loss(logits, batch, items), torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    )


def test_a_step_without_labels_is_refused() -> None:
    batch = DictBatch({}, torch.full((2, WIDTH), IGNORED))
    with pytest.raises(BadData, match="without one labelled item"):
        mean_items(CausalLM(), [batch], 1, lambda values: values)


def test_a_target_that_is_certain_is_the_label_and_a_mixed_one_the_mean_of_both() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
    plain = Batch(torch.ones(2, 1), torch.ones(2, 1), torch.tensor([0, 2]))
    certain, other = torch.eye(3)[[0, 2]], torch.eye(3)[[1, 1]]
    loss = Classification().loss
    torch.testing.assert_close(loss(logits, plain._replace(targets=certain), 2), loss(logits, plain, 2))
    mixed = loss(logits, plain._replace(targets=0.3 * certain + 0.7 * other), 2)
    against = loss(logits, plain._replace(labels=torch.tensor([1, 1])), 2)
    torch.testing.assert_close(mixed, 0.3 * loss(logits, plain, 2) + 0.7 * against)
    weighed = plain._replace(targets=certain, weights=torch.tensor([2.0, 0.0]))
    torch.testing.assert_close(loss(logits, weighed, 2), loss(logits[:1], Batch(*(part[:1] for part in plain[:3])), 1))


def test_a_row_of_weight_two_counts_twice_and_weights_of_one_change_no_bit() -> None:
    logits, labels = torch.randn(4, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 1, 0])
    blank = torch.zeros(4, 1, dtype=torch.int64)
    plain = Batch(blank, blank, labels)
    twice = Classification().loss(logits, plain._replace(weights=torch.tensor([2.0, 1.0, 1.0, 0.0])), 4)
    doubled = Classification().loss(logits[[0, 0, 1, 2]], Batch(blank, blank, labels[[0, 0, 1, 2]]), 4)
    assert torch.allclose(twice, doubled)
    assert Classification().loss(logits, plain._replace(weights=torch.ones(4)), 4) == Classification().loss(logits, plain, 4)
