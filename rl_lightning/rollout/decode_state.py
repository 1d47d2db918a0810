"""All that a decode step reads and writes besides the weights, and the step itself.

Everything is allocated once and stays at the same addresses, so that a step can be captured as a CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rl_lightning.policy.products import is_measured, product
from rl_lightning.rollout.cache import SlotCache
from rl_lightning.rollout.network import Decoder
from rl_lightning.rollout.sampling import Sampling, choose


@dataclass(frozen=True)
class StateShape:
    """The sizes of a decode state.

    Attributes:
        rows: N, completions.
        slots: R, sequences that decode at once.
        length: L, positions of a slot.
        width: tokens of a completion, and the steps that it may decode before its end is noticed.
    """

    rows: int
    slots: int
    length: int
    width: int


def whole_eights(length: int) -> int:
    """The next multiple of 8, which fused attention needs for its mask."""
    return -(-length // 8) * 8


class DecodeState:
    """Slots, their cache, and the sampled tokens of one rollout at a time.

    Active slots come first, idle slots after them. A step may include idle slots; these write to a dummy row N, after the last
    row, which is never read.

    Args:
        decoder: the model.
        shape: the sizes.
        sampling: how tokens are chosen.
        greedy: whether the most likely one is.
        eos_token_ids: (E,) int64, the tokens that end a completion.

    Attributes:
        row, token, position, prompt: (R,) int64 for each slot: its row of the rollout, its last token, that token's position, and
            the length of its prompt.
        probs: (R, V) probabilities of the token being sampled; logits too, where a step writes them into a buffer.
        transposed: (R * V,) scratch memory for transposed logits; empty on a GPU, and where products are measured.
        wide: (R, V) logits of 16 bits in float32, to which a CPU converts them in a tenth of the time if the memory is not new;
            empty on a GPU, and where they are in float32.
        uniforms: (N + 1, width) float64 numbers that decide each row's tokens; None where it is greedy.
        tokens, logps: (N + 1, width) sampled tokens and their log-probs, which are NaN where the logits were not finite.
        ends: (N + 1,) length of each row that ended with an EOS token, that token included, or with one whose log-prob is NaN; else
            0.
        spoiled: (R,) bool, slots whose cache may hold numbers that are not finite.
    """

    def __init__(
        self, decoder: Decoder, shape: StateShape, sampling: Sampling, greedy: bool, eos_token_ids: Tensor
    ) -> None:
        self.decoder, self.shape, self.sampling, self.eos_token_ids = decoder, shape, sampling, eos_token_ids
        rows, slots, device = shape.rows + 1, shape.slots, decoder.head.weight.device
        self.cache = SlotCache(decoder, slots, shape.length)
        self.uniforms = None if greedy else torch.zeros(rows, shape.width, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(rows, shape.width, dtype=torch.int64, device=device)
        self.logps = torch.zeros(rows, shape.width, dtype=torch.float32, device=device)
        self.ends = torch.zeros(rows, dtype=torch.int64, device=device)
        weight = decoder.head.weight
        # Not `new_empty`, whose tensors would be packed where the weight is.
        size = 0 if is_measured(weight) else slots
        self.logits = torch.empty(size, len(weight), dtype=weight.dtype, device=device)
        size = 0 if weight.is_cuda else self.logits.numel()
        self.transposed = torch.empty(size, dtype=weight.dtype, device=device)
        wide = slots if weight.dtype != torch.float32 and not weight.is_cuda else 0
        self.wide = torch.empty(wide, len(weight), dtype=torch.float32, device=device)
        self.probs = torch.empty(slots, len(weight), dtype=torch.float32, device=device)
        self.row, self.token, self.position, self.prompt = torch.zeros(4, slots, dtype=torch.int64, device=device)
        self.spoiled = torch.zeros(slots, dtype=torch.bool, device=device)
        self.row.fill_(shape.rows)

    def samples_like(self, sampling: Sampling, greedy: bool, eos_token_ids: Tensor) -> bool:
        """Whether steps would run the same kernels with the same constants."""
        if eos_token_ids is not self.eos_token_ids or greedy != (self.uniforms is None):
            return False
        names = ("max_new_tokens",) if greedy else ("max_new_tokens", "temperature", "top_p", "top_k", "min_p")
        return all(getattr(sampling, name) == getattr(self.sampling, name) for name in names)

    def clear(self) -> None:
        """Forget an earlier rollout, its cache too: a number that is not finite would reach rows that give it weight zero."""
        for buffer in (self.ends, self.token, self.position, self.prompt, self.spoiled):
            buffer.zero_()
        self.cache.clear()
        self.row.fill_(self.shape.rows)

    def renew(self, slots: Tensor) -> None:
        """Make (K,) slots ready for other rows, which must not meet numbers that are not finite."""
        spoiled = slots[self.spoiled[slots]]
        if len(spoiled):
            self.cache.clear(spoiled)
            self.spoiled[spoiled] = False

    def set_uniforms(self, uniforms: Tensor | None) -> None:
        """Copy the (N', T) numbers that decide the tokens of a rollout's N' rows."""
        if uniforms is not None and self.uniforms is not None:
            rows, tokens = uniforms.shape
            self.uniforms[:rows, :tokens] = uniforms.to(self.uniforms.device)

    def step(self, slots: int, span: int) -> None:
        """Sample one token for each of the first slots, which attend to `span` positions of the cache. No value is transferred to
        the host."""
        row, token, position, prompt = (s[:slots] for s in (self.row, self.token, self.position, self.prompt))
        attend = self.cache.attention(position, span)
        hidden = self.decoder(token[:, None], position[:, None], attend)[:, 0]
        # An idle slot's column may be out of range, so it is clamped; what it writes goes to the dummy row.
        column = (position + 1 - prompt).clamp(0, self.shape.width - 1)
        uniforms = None if self.uniforms is None else self.uniforms[row, column]
        logits = self._logits(hidden)
        if len(self.wide):
            logits = self.wide[:slots].copy_(logits)
        chosen, logps = choose(logits, self.sampling, uniforms, self.probs[:slots])
        self.tokens[row, column], self.logps[row, column] = chosen, logps
        before = self.ends[row]
        not_finite = logps.isnan()
        self.spoiled[:slots] |= not_finite
        # Not torch.isin, which sorts where there are many values and then waits for the GPU, as a graph must not.
        is_end = (chosen[:, None] == self.eos_token_ids).any(dim=1) | not_finite
        ends_now = (before == 0) & (column < self.sampling.max_new_tokens) & is_end
        self.ends[row] = torch.where(ends_now, column + 1, before)
        token.copy_(chosen)
        position.add_(1)

    def _logits(self, hidden: Tensor) -> Tensor:
        """(R', H) to (R', V)."""
        head, weight, logits = self.decoder.head, self.decoder.head.weight, self.logits[: len(hidden)]
        hidden = head.scaled(hidden)
        if is_measured(weight):
            return head.finish(product(hidden, weight))
        if logits.is_cuda:
            return head.finish(torch.mm(hidden, weight.T, out=logits))
        # Few rows and many words: on a CPU the transposed product of a small head is a third faster, transposing it back included.
        transposed = self.transposed[: logits.numel()].view(len(weight), len(hidden))
        return head.finish(logits.copy_(torch.mm(weight, hidden.T, out=transposed).T))
