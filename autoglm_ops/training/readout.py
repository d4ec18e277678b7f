"""GLM classifiers that compute what their answer hangs on, and no more.

A classifier reads its answer off one token of a text, its last, so of its only layer the query, the feed-forward and the last norm are
needed there alone; and before rotation a token's key and value hang on the token alone, so they are computed once for each distinct token
of a batch. What comes out is transformers' own answer up to the order of its sums (tests/unit/training/test_readout.py). With the default
model, 32 reviews a batch and one thread, forward and backward take a seventh of the time, an answer a quarter
(tests/benchmarks/bench_readout.py).

Deeper models, and whoever asks for more than logits, get transformers' own way.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch.nn.functional import embedding, scaled_dot_product_attention
from transformers import AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast
from transformers.models.glm.modeling_glm import rotate_half

__all__ = ["AutoModelForSequenceClassification", "GlmForSequenceClassification"]


class GlmForSequenceClassification(transformers.GlmForSequenceClassification):  # type: ignore[misc]  # its library is untyped
    """Of the parent's name, since that is what config.json says of a model that is saved."""

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **others: Any,
    ) -> SequenceClassifierOutputWithPast:
        """input_ids, attention_mask: int64 [rows, width]. Returns logits [rows, labels]; `others` as the parent takes them."""
        (layer, *more) = self.model.layers
        named = self.config.return_dict if return_dict is None else return_dict  # peft says it with every call
        plain = named and all(value is None for value in others.values()) and self.config.pad_token_id is not None
        if input_ids is None or more or not plain or (layer.gradient_checkpointing and self.training):
            return super().forward(input_ids, attention_mask=attention_mask, return_dict=return_dict, **others)
        return SequenceClassifierOutputWithPast(logits=self.score(self._read_out(layer, input_ids, attention_mask)))

    def _read_out(self, layer: Any, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """The last state of each row's last token that is no padding, [rows, hidden size]."""
        attention, places = layer.self_attn, torch.arange(ids.shape[1], device=ids.device)
        last = (places * (ids != self.config.pad_token_id)).argmax(1)
        tokens, where = torch.unique(ids, return_inverse=True)
        of_last = where.gather(1, last[:, None])
        raw = self.model.embed_tokens(tokens)
        normed = layer.input_layernorm(raw)
        keys, values = (embedding(where, each(normed)) for each in (attention.k_proj, attention.v_proj))
        query = attention.q_proj(embedding(of_last, normed))
        cos, sin = self.model.rotary_emb(normed, position_ids=places[None])
        heads = [each.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for each in (query, keys, values)]
        seen = places <= last[:, None] if mask is None else mask.bool() & (places <= last[:, None])
        out = scaled_dot_product_attention(
            _turned(heads[0], cos[0, last][:, None], sin[0, last][:, None]),
            _turned(heads[1], cos, sin),
            heads[2],
            attn_mask=seen[:, None, None],
            dropout_p=attention.attention_dropout if self.training else 0.0,
            scale=attention.scaling,
            enable_gqa=attention.num_key_value_groups > 1,
        )
        state = embedding(of_last, raw) + attention.o_proj(out.transpose(1, 2).flatten(2))
        state = state + layer.mlp(layer.post_attention_layernorm(state))
        answer: torch.Tensor = self.model.norm(state)[:, 0]
        return answer


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions on the first part of each head, pairs beside each other (modeling_glm.apply_rotary_pos_emb): x [rows, heads, n,
    head size], cos and sin [rows or 1, n, rotary size], of which the second half repeats the first.
    """
    half = cos.shape[-1] // 2
    cos, sin = (each[..., :half].repeat_interleave(2, -1)[:, None] for each in (cos, sin))
    turning, passing = x[..., : 2 * half], x[..., 2 * half :]
    return torch.cat([turning * cos + rotate_half(turning) * sin, passing], -1)


# Whatever takes a model's class from its configuration takes this one.
AutoModelForSequenceClassification.register(transformers.GlmConfig, GlmForSequenceClassification, exist_ok=True)
