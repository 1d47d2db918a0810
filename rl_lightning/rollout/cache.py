"""Keys and values of a rollout: of each prompt once, and of the sequences that decode together."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.rollout.network import Attend, Decoder, causal_attention

PREFILL_TOKENS = 4096
"""Prompts run through the network together up to this many tokens, padding included: it bounds the activations."""


class Prompts:
    """Keys and values of the next few of B prompts, which are read in their order.

    Args:
        decoder: what they are run through.
        ids: (B, P) int64, right-padded.
        lengths: (B,) int64, tokens of each.
        at_once: this many are kept; those that come after take their place.

    Attributes:
        first: number of the first that is kept.
        end: one more than that of the last.
    """

    def __init__(self, decoder: Decoder, ids: Tensor, lengths: Tensor, at_once: int) -> None:
        self._decoder, self._ids, self._lengths = decoder, ids, lengths
        layers, heads, width = decoder.kv_shape
        self._at_once = min(at_once, len(ids))
        shape = (2, layers, self._at_once, heads, ids.shape[1], width)
        self.keys, self.values = torch.zeros(shape, dtype=decoder.head.dtype, device=ids.device)  # see SlotCache
        self.first = self.end = 0
        self.read_on()

    def read_on(self) -> None:
        """Run the next ones through the network, in place of those kept."""
        self.first, self.end = self.end, min(self.end + self._at_once, len(self._ids))
        widest = int(self._lengths[self.first : self.end].max())
        at_once = max(1, PREFILL_TOKENS // widest)
        for first in range(self.first, self.end, at_once):
            part = self._ids[first : min(first + at_once, self.end), :widest]
            positions = torch.arange(widest, device=part.device).expand_as(part)
            self._decoder(part, positions, self._keep(first - self.first, part))

    def _keep(self, first: int, part: Tensor) -> Attend:
        rows, width = slice(first, first + len(part)), part.shape[1]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
            self.keys[layer, rows, :, :width], self.values[layer, rows, :, :width] = key, value
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
        self._heads = torch.arange(slots * heads, device=decoder.head.device).view(slots, heads) * length

    def fill(self, slots: Tensor, prompts: Prompts, owners: Tensor) -> None:
        """Begin sequences in (K,) slots with the prompts (K,) that they answer, by their numbers."""
        width = prompts.keys.shape[3]
        for mine, theirs in ((self.keys, prompts.keys), (self.values, prompts.values)):
            for layer, prompt in zip(mine, theirs, strict=True):  # by layer: the copy in between stays small
                layer[slots, :, :width] = prompt[owners - prompts.first]

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
        rows, heads = len(positions), self._heads.shape[1]
        at = (self._heads[:rows] + positions[:, None]).flatten()
        ahead = torch.arange(span, device=positions.device) > positions[:, None]
        mask = torch.zeros(ahead.shape, dtype=self.keys.dtype, device=ahead.device).masked_fill_(ahead, -torch.inf)
        mask = mask[:, None, None]
        if not mask.is_cuda:
            mask = mask.expand(-1, heads, -1, -1).flatten(0, 1)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
            for buffer, new in ((self.keys[layer], key), (self.values[layer], value)):
                buffer.view(-1, buffer.shape[3]).index_copy_(0, at, new.reshape(len(at), -1))
            keys, values = self.keys[layer, :rows, :, :span], self.values[layer, :rows, :, :span]
            # The query heads that share a key head stand as several queries of one head: the cache is not repeated for them.
            grouped = query.reshape(rows, heads, -1, query.shape[3])
            return _weighed(grouped, keys, values, mask, scale).reshape(query.shape)

        return attend


def _weighed(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Scaled dot-product attention of few queries over many keys; on a CPU the mask has rows and heads in one."""
    if query.is_cuda:
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
    # Over so few queries a CPU's fused attention takes up to three times as long as its three parts.
    scores = torch.baddbmm(mask, query.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), alpha=scale)
    seen = torch.bmm(scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype), values.flatten(0, 1))
    return seen.view(query.shape)
