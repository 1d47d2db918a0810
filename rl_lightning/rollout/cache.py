"""The key/value cache of a rollout: of each prompt once, and of the sequences that decode together.

Prompts are prefilled packed, without padding, and with what they have in common from the start once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.policy.attention import AttentionKind, Rows, causal_attention, masked_attention
from rl_lightning.policy.placement import stages
from rl_lightning.policy.prefixes import PackedPrompts, common_prefixes, pack_prompts
from rl_lightning.rollout.network import Attend, Decoder

PREFILL_TOKENS = 4096
"""Prompt tokens in one forward pass of the prefill, padding and shared beginnings included as in the rows of its attention; it
bounds the activations."""


class PromptCache:
    """Keys and values of the next few of B prompts, which are prefilled in their order.

    Args:
        decoder: the model.
        ids: (B, P) int64, right-padded.
        lengths: (B,) int64, tokens of each prompt.
        capacity: number of prompts that are held at once; later ones replace them.

    Attributes:
        first: index of the first prompt that is held.
        end: one more than the index of the last one.
    """

    def __init__(self, decoder: Decoder, ids: Tensor, lengths: Tensor, capacity: int) -> None:
        self._decoder, self._ids, self._lengths = decoder, ids, lengths
        self._capacity, self._stages = min(capacity, len(ids)), stages(decoder.devices)
        self._stage_of = [number for number, stage in enumerate(self._stages) for _ in stage.layers]
        self.keys, self.values = _zeros(decoder, self._capacity, ids.shape[1])
        self.first = self.end = 0
        self.prefill_next()

    def prefill_next(self) -> None:
        """Prefill the next prompts, in place of those that are held."""
        for buffer in (*self.keys, *self.values) if self.end else ():
            buffer.zero_()  # one of the earlier prompts may have left numbers that are not finite beyond the next ones' width
        self.first, self.end = self.end, min(self.end + self._capacity, len(self._ids))
        width = int(self._lengths[self.first : self.end].max())
        batch_size = max(1, PREFILL_TOKENS // width)
        for first in range(self.first, self.end, batch_size):
            self._prefill(first, min(first + batch_size, self.end), width)

    def _prefill(self, first: int, end: int, width: int) -> None:
        """Prefill some prompts of at most `width` tokens together, or each alone where one has numbers that are not finite: others
        give them weight zero, after the end of their own rows or where they share a beginning, and zero times NaN is NaN."""
        ids, lengths = self._ids[first:end, :width], self._lengths[first:end]
        packed = pack_prompts(ids, lengths, common_prefixes(ids, lengths))
        held = slice(first - self.first, end - self.first)
        self._decoder(packed.ids[None], packed.positions[None], self._storing_attention(held, packed))
        if end - first > 1 and not self._is_finite(held):
            for buffer in (*self.keys, *self.values):
                buffer[held] = 0
            for prompt in range(first, end):
                self._prefill(prompt, prompt + 1, int(self._lengths[prompt]))

    def _is_finite(self, held: slice) -> bool:
        finite = [buffer[held].isfinite().all().to(self._ids.device) for buffer in (*self.keys, *self.values)]
        return bool(torch.stack(finite).all())

    def _storing_attention(self, held: slice, packed: PackedPrompts) -> Attend:
        """Causal attention of packed prompts, in rows, that also stores keys and values, in the rows `held`."""
        width = packed.tokens.shape[1]
        packed_rows = Rows((packed.tokens,), packed.prompt * width + packed.positions)
        rows_of = [packed_rows.to(stage.device) for stage in self._stages]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) -> Tensor:
            rows = rows_of[self._stage_of[layer]]
            (query,), (key,), (value,) = (rows.unpack(each) for each in (query, key, value))
            self.keys[layer][held, :, :width], self.values[layer][held, :, :width] = key, value
            return rows.repack([causal_attention(query, key, value, kind).transpose(1, 2)]).transpose(1, 2)

        return attend


class SlotCache:
    """Keys and values of R sequences of up to L tokens each, allocated once; every sequence starts at position 0 of its slot.

    Args:
        decoder: the model.
        slots: R, sequences.
        length: L, positions of a slot.
    """

    def __init__(self, decoder: Decoder, slots: int, length: int) -> None:
        self._stages = stages(decoder.devices)
        self._stage_of = [number for number, stage in enumerate(self._stages) for _ in stage.layers]
        self.keys, self.values = _zeros(decoder, slots, length)
        _, heads, _ = decoder.kv_shape
        self._heads = torch.arange(slots * heads, device=decoder.head.weight.device).view(slots, heads) * length

    def fill(self, slots: Tensor, prompts: PromptCache, prompt_index: Tensor) -> None:
        """Copy the keys and values of (K,) prompts, given by their index, into (K,) slots."""
        width = prompts.keys[0].shape[2]
        for stage in self._stages:
            targets, sources = slots.to(stage.device), (prompt_index - prompts.first).to(stage.device)
            for target, source in ((self.keys, prompts.keys), (self.values, prompts.values)):
                for layer in stage.layers:  # by layer, so that the temporary copy stays small
                    target[layer][targets, :, :width] = source[layer][sources]

    def clear(self, slots: Tensor | None = None) -> None:
        """Set (K,) slots to zero; None for all."""
        for stage in self._stages:
            those = slice(None) if slots is None else slots.to(stage.device)
            for buffer in (self.keys, self.values):
                for layer in stage.layers:
                    buffer[layer][those] = 0

    def move(self, sources: Tensor, targets: Tensor, length: int) -> None:
        """Copy the first `length` positions of (K,) slots to (K,) others."""
        for stage in self._stages:
            of, to = sources.to(stage.device), targets.to(stage.device)
            for buffer in (self.keys, self.values):
                for layer in stage.layers:
                    buffer[layer][to, :, :length] = buffer[layer][of, :, :length]

    def attention(self, positions: Tensor, span: int) -> Attend:
        """Attention of one new token in each of the first R' slots over its own sequence.

        Args:
            positions: (R',) int64, the position of each slot's new token; below `span`.
            span: number of cache positions that are read.
        """
        rows, heads = len(positions), self._heads.shape[1]
        index = (self._heads[:rows] + positions[:, None]).flatten()
        steps = [
            _Step(index.to(stage.device), positions.to(stage.device), span, self.keys[0].dtype)
            for stage in self._stages
        ]

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) -> Tensor:
            step = steps[self._stage_of[layer]]
            for buffer, new in ((self.keys[layer], key), (self.values[layer], value)):
                buffer.view(-1, buffer.shape[3]).index_copy_(0, step.index, new.reshape(len(step.index), -1))
            keys, values = self.keys[layer][:rows, :, :span], self.values[layer][:rows, :, :span]
            mask = step.mask(None if kind.window is None or kind.window >= span else kind.window)
            if not kind.fused:
                return masked_attention(query, keys, values, mask, kind)
            # The query heads that share a key head become several queries of one head, so the cache need not be repeated.
            grouped = query.reshape(rows, heads, -1, query.shape[3])
            return _decode_attention(grouped, keys, values, mask, kind.scale).reshape(query.shape)

        return attend


class _Step:
    """What attention of one step needs on one device.

    Attributes:
        index: where the keys of new tokens are written, of all slots and heads.
    """

    def __init__(self, index: Tensor, positions: Tensor, span: int, dtype: torch.dtype) -> None:
        self.index, self._positions, self._span, self._dtype = index, positions, span, dtype
        self._masks: dict[int | None, Tensor] = {}

    def mask(self, window: int | None) -> Tensor:
        """(R', 1, 1, span), to be added to scores."""
        if window not in self._masks:
            distance = self._positions[:, None] - torch.arange(self._span, device=self._positions.device)
            hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
            mask = torch.zeros(hidden.shape, dtype=self._dtype, device=hidden.device)
            self._masks[window] = mask.masked_fill_(hidden, -torch.inf)[:, None, None]
        return self._masks[window]


def _zeros(decoder: Decoder, sequences: int, length: int) -> tuple[list[Tensor], list[Tensor]]:
    """Keys and values of each layer, (sequences, kv heads, length, D) each, one allocation a device.

    Zeros, because a position that was never written is read with attention weight zero, and zero times NaN would be NaN.
    """
    _, heads, width = decoder.kv_shape
    keys: list[Tensor] = []
    values: list[Tensor] = []
    for stage in stages(decoder.devices):
        shape = (2, len(stage.layers), sequences, heads, length, width)
        some_keys, some_values = torch.zeros(shape, dtype=decoder.head.weight.dtype, device=stage.device)
        keys += some_keys
        values += some_values
    return keys, values


def _decode_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Scaled dot-product attention of few queries over many keys, with a mask of (rows, 1, 1, keys)."""
    if query.is_cuda or query.dtype != torch.float32:
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)
    # In float32 on a CPU, fused attention of so few queries is no faster than its three operations; in 16 bits, which these first
    # copy, it takes half the time.
    mask = mask.expand(-1, keys.shape[1], -1, -1).flatten(0, 1)
    scores = torch.baddbmm(mask, query.flatten(0, 1), keys.flatten(0, 1).transpose(1, 2), alpha=scale)
    out = torch.bmm(scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype), values.flatten(0, 1))
    return out.view(query.shape)
