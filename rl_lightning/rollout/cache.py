"""Keys and values of a rollout: of each prompt once, and of the sequences that decode together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.rollout.network import Attend, Decoder, causal_attention

PREFILL_TOKENS = 4096
"""Prompts run through the network together up to this many tokens, padding included: it bounds the activations."""


class Prompts:
    """Keys and values of B prompts.

    Args:
        decoder: what they are run through.
        ids: (B, P) int64, right-padded.
    """

    def __init__(self, decoder: Decoder, ids: Tensor) -> None:
        layers, heads, width = decoder.kv_shape
        shape = (2, layers, len(ids), heads, ids.shape[1], width)
        self.keys, self.values = torch.empty(shape, dtype=decoder.head.dtype, device=ids.device)
        at_once = max(1, PREFILL_TOKENS // ids.shape[1])
        for first in range(0, len(ids), at_once):
            part = ids[first : first + at_once]
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(part)
            decoder(part, positions, self._keep(slice(first, first + at_once)))

    def _keep(self, prompts: slice) -> Attend:
        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
            self.keys[layer, prompts], self.values[layer, prompts] = key, value
            return causal_attention(layer, query, key, value, scale)

        return attend


class SlotCache:
    """Room for R sequences of up to L tokens each, allocated once; every sequence begins at place 0.

    Args:
        decoder: what they are run through.
        slots: R.
        length: L.
    """

    def __init__(self, decoder: Decoder, slots: int, length: int) -> None:
        layers, heads, width = decoder.kv_shape
        shape = (2, layers, slots, heads, length, width)
        # Zeros, for a place that was never written is read and weighed with zero, which a NaN would survive.
        self.keys, self.values = torch.zeros(shape, dtype=decoder.head.dtype, device=decoder.head.device)
        self._all = torch.arange(slots, device=decoder.head.device)

    def fill(self, slots: Tensor, prompts: Prompts, owners: Tensor) -> None:
        """Begin sequences in (K,) slots with the prompts (K,) that they answer."""
        width = prompts.keys.shape[3]
        for mine, theirs in ((self.keys, prompts.keys), (self.values, prompts.values)):
            for layer, prompt in zip(mine, theirs, strict=True):  # by layer: the copy in between stays small
                layer[slots, :, :width] = prompt[owners]

    def move(self, sources: Tensor, targets: Tensor, length: int) -> None:
        """Move the first `length` tokens of (K,) slots to (K,) others."""
        for buffer in (self.keys, self.values):
            for layer in buffer:
                layer[targets, :, :length] = layer[sources, :, :length]

    def attention(self, positions: Tensor, span: int) -> Attend:
        """Attention of one new token in each of the first slots over its own sequence.

        Args:
            positions: (R',) int64, where each slot's new token goes; below `span`.
            span: how much of the cache is read.
        """
        slots = self._all[: len(positions)]
        ahead = torch.arange(span, device=positions.device) > positions[:, None]
        mask = torch.zeros(ahead.shape, dtype=self.keys.dtype, device=ahead.device).masked_fill_(ahead, -torch.inf)
        mask = mask[:, None, None]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
            keys, values = self.keys[layer, : len(slots)], self.values[layer, : len(slots)]
            keys[slots, :, positions], values[slots, :, positions] = key[:, :, 0], value[:, :, 0]
            # The query heads that share a key head stand as several queries of one head: the cache is not repeated for them.
            grouped = query.reshape(len(slots), keys.shape[1], -1, query.shape[3])
            seen = F.scaled_dot_product_attention(
                grouped, keys[:, :, :span], values[:, :, :span], attn_mask=mask, scale=scale
            )
            return seen.reshape(query.shape)

        return attend
