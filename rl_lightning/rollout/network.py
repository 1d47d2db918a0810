"""A Llama-style causal language model, written out for decoding: few kernels per token, and attention passed in by the caller.

Llama, Qwen2, Qwen3, Mistral and Phi-3 have this architecture. The caller of a forward pass holds the keys and values, so it
passes the attention function. The linear layers are passed in as well: `policy_decoder` makes them from a dense copy, or from the
4-bit base with adapters, or from a model that is trained as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.policy.attention import AttentionKind, causal_attention
from rl_lightning.policy.head import Head
from rl_lightning.policy.placement import stages

Linear = Callable[[Tensor], Tensor]
"""A linear layer: (…, in) to (…, out)."""


class Attend(Protocol):
    """Attention of t new tokens in each of R rows over all tokens that they may attend to.

    Arguments: the layer's number; queries (R, heads, t, D); keys and values (R, kv heads, t, D) of the new tokens, with positions
    encoded; and how the layer attends. Returns (R, heads, t, D).
    """

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) -> Tensor: ...


def attend_whole_rows(layer: int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) -> Tensor:
    """`Attend` for whole, right-padded rows: the new tokens attend to each other, causally."""
    return causal_attention(query, key, value, kind)


class Decoder(Protocol):
    """The model of a rollout.

    Attributes:
        head: the output head, from last hidden states to logits.
        kv_shape: number of layers, number of key/value heads, their width D.
        devices: of each layer; the first is also that of ids, positions, hidden states and head.
    """

    head: Head
    kv_shape: tuple[int, int, int]
    devices: Sequence[torch.device]

    @property
    def uncapturable(self) -> str | None:
        """Why a step cannot be captured as a CUDA graph; None where it can."""
        ...

    def set_max_length(self, length: int) -> bool:
        """Set the maximum length of a sequence, in tokens; returns whether it is as it was, so that nothing has moved that a graph
        reads."""

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """(R, t) ids at (R, t) positions to (R, t, H) last hidden states."""
        ...


@dataclass
class Layer:
    """One decoder layer; linear layers with the same input are fused into one.

    Attributes:
        kind: how it attends.
        rotary: whether queries and keys are rotated by their position (not in every layer of SmolLM3).
    """

    attention_norm: Tensor
    qkv: Linear
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    kind: AttentionKind
    rotary: bool = True
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None


@dataclass
class Network:
    """The whole model.

    Attributes:
        embedding: (V, H) input embedding.
        layers: the decoder layers.
        norm: (H,) weight of the last norm.
        head: the output head.
        heads: number of query heads.
        kv_shape: number of layers, number of key/value heads, their width D.
        eps: epsilon of the norms.
        devices: of each layer, the first also of all else.
        rotary: from (1, t) positions to their cosines and sines, (1, t, D') each, of the first D' of a head's D elements.
    """

    embedding: Tensor
    layers: Sequence[Layer]
    norm: Tensor
    head: Head
    heads: int
    kv_shape: tuple[int, int, int]
    eps: float
    devices: Sequence[torch.device]
    rotary: Callable[[Tensor], tuple[Tensor, Tensor]]

    uncapturable = None

    def __post_init__(self) -> None:
        self._stages, self._max_length = stages(self.devices), 0
        self._cos_sin: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def set_max_length(self, length: int) -> bool:
        """Compute the rotary position encoding of `length` positions; see `Decoder`."""
        if length == self._max_length:
            return True
        self._max_length = length
        cos, sin = (table[0] for table in self.rotary(torch.arange(length, device=self.embedding.device)[None]))
        half = sin.shape[1] // 2
        sin = torch.cat([-sin[:, :half], sin[:, half:]], dim=1)
        self._cos_sin = {stage.device: (cos.to(stage.device), sin.to(stage.device)) for stage in self._stages}
        return False

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """The last hidden states; see `Decoder`. Positions must be below the length given to `set_max_length`."""
        x = F.embedding(ids, self.embedding)
        for stage in self._stages:
            x, tables = x.to(stage.device), self.tables(positions, stage.device)
            for number in stage.layers:
                self.add_layer(number, x, tables, attend)
        return self.rms_norm(x.to(self._stages[0].device), self.norm)

    def tables(self, positions: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """The cosines and signed sines of (R, t) positions for the layers on a device, (R, t, 1, D') each."""
        positions = positions.to(device)
        cos, sin = (table[positions][:, :, None] for table in self._cos_sin[device])
        return cos, sin

    def add_layer(self, number: int, x: Tensor, tables: tuple[Tensor, Tensor], attend: Attend) -> None:
        """Apply a layer to (R, t, H) hidden states, in place."""
        layer = self.layers[number]
        x += self._attention(number, layer, self.rms_norm(x, layer.attention_norm), tables, attend)
        x += self._mlp(layer, self.rms_norm(x, layer.mlp_norm))

    def _attention(self, number: int, layer: Layer, x: Tensor, tables: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        _, kv_heads, width = self.kv_shape
        qkv = layer.qkv(x).unflatten(-1, (self.heads + 2 * kv_heads, width))
        query_key, value = qkv.split([self.heads + kv_heads, kv_heads], dim=2)
        if layer.q_norm is not None and layer.k_norm is not None:
            query, key = query_key.split([self.heads, kv_heads], dim=2)
            query_key = torch.cat([self.rms_norm(query, layer.q_norm), self.rms_norm(key, layer.k_norm)], dim=2)
        if layer.rotary:
            query_key = _rotate(query_key, *tables)
        query, key = query_key.split([self.heads, kv_heads], dim=2)
        out = attend(number, query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), layer.kind)
        return layer.out(out.transpose(1, 2).flatten(2))

    def _mlp(self, layer: Layer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(x).chunk(2, dim=-1)
        return layer.down(F.silu(gate) * up)

    def rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMSNorm (arXiv 1910.07467) over the last dimension."""
        return F.rms_norm(x, weight.shape, weight, self.eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary encoding (arXiv 2104.09864) of the first D' of each head's D elements."""
    rotated = cos.shape[-1]
    if rotated < x.shape[-1]:
        return torch.cat([_rotate(x[..., :rotated], cos, sin), x[..., rotated:]], dim=-1)
    return torch.addcmul(x * cos, x.roll(rotated // 2, dims=-1), sin)
