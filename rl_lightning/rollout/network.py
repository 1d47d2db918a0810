"""A causal language model of the Llama shape, written out for decoding: few kernels a token, and attention left to whoever
holds the keys and values.

Llama, Qwen2 and 3, Mistral and Phi-3 have this shape. Where the products come from (a dense copy, or 4 bits with adapters) is the
policy's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

Linear = Callable[[Tensor], Tensor]
"""(…, in) to (…, out)."""


class Attend(Protocol):
    """Attention of new tokens over all that they may see: layer number, then queries (R, heads, t, D), keys and values
    (R, kv heads, t, D) of the new tokens with positions encoded, and the scale; returns (R, heads, t, D)."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor: ...


def causal_attention(layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """`Attend` for whole, right-padded rows: new tokens see each other."""
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)


class Decoder(Protocol):
    """What a rollout runs on.

    Attributes:
        head: (V, H) output embedding; logits are hidden @ head.T.
        kv_shape: number of layers, key/value heads, their width.
    """

    head: Tensor
    kv_shape: tuple[int, int, int]

    def room_for(self, length: int) -> None:
        """Say how long a sequence may become."""

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """(R, t) ids at (R, t) positions to (R, t, H) last hidden states."""
        ...


@dataclass
class Layer:
    """One block; products that read the same input are one."""

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
        embedding: (V, H).
        layers: its blocks.
        norm: (H,) the last norm's weight.
        head: (V, H).
        heads: query heads.
        kv_shape: number of layers, key/value heads, their width D.
        eps: of the norms.
        rotary: (1, t) positions to their cosines and sines, (1, t, D) each.
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

    def room_for(self, length: int) -> None:
        """Prepare the position encoding of `length` tokens."""
        cos, sin = (table[0] for table in self.rotary(torch.arange(length, device=self.head.device)[None]))
        half = sin.shape[1] // 2
        self._cos_sin = cos, torch.cat([-sin[:, :half], sin[:, half:]], dim=1)

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """See `Decoder`; positions must be within `room_for`."""
        assert self._cos_sin is not None
        cos, sin = (table[positions][:, :, None] for table in self._cos_sin)
        x = F.embedding(ids, self.embedding)
        for number, layer in enumerate(self.layers):
            x += self._attention(number, layer, self._normed(x, layer.attention_norm), cos, sin, attend)
            x += self._mlp(layer, self._normed(x, layer.mlp_norm))
        return self._normed(x, self.norm)

    def _attention(self, number: int, layer: Layer, x: Tensor, cos: Tensor, sin: Tensor, attend: Attend) -> Tensor:
        _, kv_heads, width = self.kv_shape
        parts = layer.qkv(x).unflatten(-1, (self.heads + 2 * kv_heads, width))
        turned, value = parts.split([self.heads + kv_heads, kv_heads], dim=2)
        if layer.q_norm is not None and layer.k_norm is not None:
            query, key = turned.split([self.heads, kv_heads], dim=2)
            turned = torch.cat([self._normed(query, layer.q_norm), self._normed(key, layer.k_norm)], dim=2)
        turned = torch.addcmul(turned * cos, turned.roll(width // 2, dims=-1), sin)
        query, key = turned.split([self.heads, kv_heads], dim=2)
        seen = attend(number, query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), width**-0.5)
        return layer.out(seen.transpose(1, 2).flatten(2))

    def _mlp(self, layer: Layer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(x).chunk(2, dim=-1)
        return layer.down(F.silu(gate) * up)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)
