"""Attention over packed rows, an example at a time: what variable-length kernels do on a GPU, for CPUs.

Through the block-diagonal mask a row of n examples scores n times as many pairs as it needs, and masks them away. Here the row is split
where positions start again, and transformers' own SDPA attention is called per example, causal and without a mask. Measured on one
thread with a GLM of 24 M parameters and rows of 450 tokens in 8 examples: attention falls from 15 % of a step to 2 %; the rows of
`make bench-train` are the whole step.
"""

from __future__ import annotations

from typing import Any

import torch

NAME = "sdpa_by_segments"
"""The attention's name in transformers' registry. It is no part of a saved configuration."""


def use(module: Any) -> None:
    """Let `module` attend so in packed rows, where it attends by SDPA on a CPU. Anything else stays as it is."""
    if _attention(module) != "sdpa" or next(module.parameters()).device.type != "cpu":
        return
    _register()
    getattr(module, "get_base_model", lambda: module)().set_attn_implementation(NAME)


def _attention(module: Any) -> str | None:
    return getattr(getattr(module, "config", None), "_attn_implementation", None)


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _forward)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _forward(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    **extra: Any,
) -> tuple[torch.Tensor, None]:
    """query, key, value [rows, heads, width, head size]; the answer [rows, width, heads, head size]."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    rows = _segments(attention_mask, position_ids, extra)
    if rows is None:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **extra)
        return out, None
    answered = []
    for row, lengths in enumerate(rows):
        parts = (torch.split(states[row : row + 1], lengths, dim=2) for states in (query, key, value))
        answered.append(
            torch.cat([sdpa_attention_forward(module, *part, None, **extra)[0] for part in zip(*parts, strict=True)], dim=1)
        )
    return torch.cat(answered), None


def _segments(mask: torch.Tensor | None, positions: torch.Tensor | None, extra: dict[str, Any]) -> list[list[int]] | None:
    """Lengths of the examples of each row; None where the mask is not exactly theirs (padding, windows, chunks, no packing)."""
    if mask is None or mask.dtype != torch.bool or positions is None or extra.get("position_bias") is not None:
        return None
    rows, width = len(mask), mask.shape[-1]
    if mask.shape[1:3] != (1, width) or positions.shape[-1] != width:
        return None
    positions = positions.expand(rows, width)
    found = [_lengths(row) for row in positions]
    # Each pair the mask leaves lies within an example and looks back: as many of them as there are such pairs means the very same ones.
    pairs = sum(length * (length + 1) // 2 for lengths in found for length in lengths)
    return found if int(mask.sum()) == pairs else None


def _lengths(positions: torch.Tensor) -> list[int]:
    starts = (torch.diff(positions) != 1).nonzero().flatten() + 1
    return torch.diff(starts, prepend=starts.new_zeros(1), append=starts.new_tensor([len(positions)])).tolist()
