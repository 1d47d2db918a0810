"""A Llama-style causal language model, written out for decoding: few kernels per token, and attention passed in by the caller.

Llama, Qwen2, Qwen3, Mistral and Phi-3 have this architecture. The caller of a forward pass holds the keys and values, so it
passes the attention function. The linear layers are passed in as well: `policy_decoder` makes them from a dense copy, or from the
4-bit base with adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Linear = Callable[[Tensor], Tensor]
"""A linear layer: (…, in) to (…, out)."""


class Attend(Protocol):
    """Attention of t new tokens in each of R rows over all tokens that they may attend to.

    Arguments: the layer's number; queries (R, heads, t, D); keys and values (R, kv heads, t, D) of the new tokens, with positions
    encoded; and the scale. Returns (R, heads, t, D).
    """

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor: ...


def causal_attention(layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """`Attend` for whole, right-padded rows: the new tokens attend to each other, causally."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)


class Decoder(Protocol):
    """The model of a rollout.

    Attributes:
        head: (V, H) output embedding; logits are hidden @ head.T.
        kv_shape: number of layers, number of key/value heads, their width D.
    """

    head: Tensor
    kv_shape: tuple[int, int, int]

    def set_max_length(self, length: int) -> None:
        """Set the maximum length of a sequence, in tokens."""

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """(R, t) ids at (R, t) positions to (R, t, H) last hidden states."""
        ...


@dataclass
class Layer:
    """One decoder layer; linear layers with the same input are fused into one."""

    attention_norm: Tensor
    qkv: Linear
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None


@dataclass
class Network:
    """The whole model.

    Attributes:
        embedding: (V, H) input embedding.
        layers: the decoder layers.
        norm: (H,) weight of the last norm.
        head: (V, H) output embedding.
        heads: number of query heads.
        kv_shape: number of layers, number of key/value heads, their width D.
        eps: epsilon of the norms.
        rotary: from (1, t) positions to their cosines and sines, (1, t, D) each.
    """

    embedding: Tensor
    layers: Sequence[Layer]
    norm: Tensor
    head: Tensor
    heads: int
    kv_shape: tuple[int, int, int]
    eps: float
    rotary: Callable[[Tensor], tuple[Tensor, Tensor]]
    _cos_sin: tuple[Tensor, Tensor] | None = None

    def set_max_length(self, length: int) -> None:
        """Compute the rotary position encoding of `length` positions."""
        cos, sin = (table[0] for table in self.rotary(torch.arange(length, device=self.head.device)[None]))
        half = sin.shape[1] // 2
        self._cos_sin = cos, torch.cat([-sin[:, :half], sin[:, half:]], dim=1)

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """The last hidden states; see `Decoder`. Positions must be below the length given to `set_max_length`."""
        assert self._cos_sin is not None
        cos, sin = (table[positions][:, :, None] for table in self._cos_sin)
        x = F.embedding(ids, self.embedding)
        for number, layer in enumerate(self.layers):
            x += self._attention(number, layer, self._rms_norm(x, layer.attention_norm), cos, sin, attend)
            x += self._mlp(layer, self._rms_norm(x, layer.mlp_norm))
        return self._rms_norm(x, self.norm)

    def _attention(self, number: int, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        _, kv_heads, width = self.kv_shape
        qkv = layer.qkv(x).unflatten(-1, (self.heads + 2 * kv_heads, width))
        query_key, value = qkv.split([self.heads + kv_heads, kv_heads], dim=2)
        if layer.q_norm is not None and layer.k_norm is not None:
            query, key = query_key.split([self.heads, kv_heads], dim=2)
            query_key = torch.cat([self._rms_norm(query, layer.q_norm), self._rms_norm(key, layer.k_norm)], dim=2)
        query_key = torch.addcmul(query_key * cos, query_key.roll(width // 2, dims=-1), sin)  # rotary encoding
        query, key = query_key.split([self.heads, kv_heads], dim=2)
        out = attend(number, query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), width**-0.5)
        return layer.out(out.transpose(1, 2).flatten(2))

    def _mlp(self, layer: Layer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(x).chunk(2, dim=-1)
        return layer.down(F.silu(gate) * up)

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)
