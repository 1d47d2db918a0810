"""The decode loop. Static buffers so that a step can be captured as a CUDA graph; idle slots write to a dummy row.

Each prompt is prefilled once. Each row decodes in a slot, and when it ends, its slot is given to the next waiting row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.policy.products import is_measured, product
from rl_lightning.rollout.cache import PromptCache, SlotCache
from rl_lightning.rollout.network import Decoder
from rl_lightning.rollout.sampling import Sampling, choose
from rl_lightning.rollout.steps import Eager, Graphs
from rl_lightning.types import PromptBatch, Rollout


@torch.inference_mode()
def sample_groups(
    decoder: Decoder,
    batch: PromptBatch,
    sampling: Sampling,
    eos_token_ids: Tensor,
    decode_text: Callable[[Tensor], str],
    draws: Tensor | None,
    pad_token_id: int = 0,
    on_finished: Callable[[int, str], None] | None = None,
    launch: type[Eager | Graphs] | None = None,
    prompts_at_once: int | None = None,
) -> Rollout:
    """Sample a group of completions for every prompt.

    Args:
        decoder: the model.
        batch: B prompts on the model's device.
        sampling: the sampling settings.
        eos_token_ids: (E,) int64, the tokens that end a completion.
        decode_text: from the token ids of one completion, without its EOS token, to its text.
        draws: (N, max_new_tokens) float64 in [0, 1) on the CPU, the uniform numbers that decide each row's tokens; None decodes
            one completion per prompt greedily (N = B).
        pad_token_id: fills rows after their end.
        on_finished: called with a row's number and its text while other rows are still being sampled.
        launch: how steps are run; None: as CUDA graphs on a single GPU, else as ordinary calls.
        prompts_at_once: number of prompts whose keys and values are held at once; the next ones are prefilled as slots become
            free. None: all B. Fewer need less memory and do not change the result.

    Returns:
        the rollout; row n answers prompt n // G.
    """
    # A graph is of one device.
    launch = launch or (Graphs if batch.prompt_ids.is_cuda and len(set(decoder.devices)) == 1 else Eager)
    decoding = _Decoding(decoder, batch, sampling, eos_token_ids, draws, launch, prompts_at_once)
    texts = [""] * decoding.rows
    for row, length in decoding.run():
        texts[row] = decode_text(decoding.tokens[row, :length].cpu())
        if on_finished is not None:
            on_finished(row, texts[row])
    with torch.inference_mode(False):
        return decoding.rollout(tuple(texts), pad_token_id)


class _Decoding:
    """One rollout in progress.

    All that a step reads and writes is allocated once and stays at the same addresses, so that a step can be captured as a CUDA
    graph. Active slots come first, idle slots after them. A step may include idle slots; these write to a dummy row N, after the
    last row, which is never read.

    Attributes:
        row, token, position, prompt: (R,) int64 for each slot: its row of the rollout, its last token, that token's position, and
            the length of its prompt.
        logits, probs: (R, V) logits and probabilities of the token being sampled.
        transposed: (R * V,) scratch memory for transposed logits; empty on a GPU.
        tokens, logps: (N + 1, T + sync_interval) sampled tokens and their log-probs.
        ends: (N + 1,) length of each row that ended with an EOS token, that token included; else 0.
    """

    def __init__(
        self,
        decoder: Decoder,
        batch: PromptBatch,
        sampling: Sampling,
        eos_token_ids: Tensor,
        uniforms: Tensor | None,
        launch: type[Eager | Graphs],
        prompts_at_once: int | None,
    ) -> None:
        self.decoder, self.batch, self.sampling, self.eos_token_ids = decoder, batch, sampling, eos_token_ids
        (prompts, prompt_width), device = batch.prompt_ids.shape, batch.prompt_ids.device
        self.group = 1 if uniforms is None else sampling.num_generations
        self.rows, self.limit = prompts * self.group, sampling.max_new_tokens
        margin = launch.sync_interval  # steps that a row may decode before its end is noticed
        width = self.limit + margin
        length = -(-(prompt_width + width) // 8) * 8  # a multiple of 8, which fused attention needs for its mask
        max_rows = sampling.max_rollout_rows
        slots = self.rows if max_rows == "auto" else min(self.rows, max_rows)
        decoder.set_max_length(length)
        self.prompts: PromptCache | None = PromptCache(
            decoder, batch.prompt_ids, batch.prompt_lengths, prompts_at_once or prompts
        )
        self.cache = SlotCache(decoder, slots, length)
        self.launch, self.length = launch, length
        self.uniforms = None if uniforms is None else F.pad(uniforms, (0, margin, 0, 1)).to(device)
        self.tokens = torch.zeros(self.rows + 1, width, dtype=torch.int64, device=device)
        self.logps = torch.zeros(self.rows + 1, width, dtype=torch.float32, device=device)
        self.ends = torch.zeros(self.rows + 1, dtype=torch.int64, device=device)
        self.logits = decoder.head.weight.new_empty(slots, len(decoder.head.weight))
        self.transposed = self.logits.new_empty(0 if self.logits.is_cuda else self.logits.numel())
        self.probs = torch.empty_like(self.logits, dtype=torch.float32)
        self.row, self.token, self.position, self.prompt = torch.zeros(4, slots, dtype=torch.int64, device=device)

    def run(self) -> Iterator[tuple[int, int]]:
        """Sample all rows; yields each row as it ends, with its length without EOS token."""
        waiting = deque(range(self.rows))
        active = len(self.row)
        # Not stored on self: it refers to this object, and a reference cycle would delay the release of its memory.
        steps = self.launch(self._step, active, self.length)
        self._admit(list(range(active)), waiting)
        while active:
            span = int(self.position[:active].max()) + steps.sync_interval
            for _ in range(steps.sync_interval):
                steps.run(active, span)
            row, position, prompt = self.row[:active], self.position[:active], self.prompt[:active]
            ends = self.ends[row]
            finished = (ends > 0) | (position + 1 - prompt >= self.limit)
            free = finished.nonzero().squeeze(1).tolist()
            for slot in free:
                end = int(ends[slot])
                yield int(row[slot]), end - 1 if end else self.limit
            if free:
                free = self._admit(free, waiting)
                active = self._compact(free, active, span)

    def _admit(self, slots: list[int], waiting: deque[int]) -> list[int]:
        """Give free slots to waiting rows; returns the slots that stay free."""
        admitted = 0
        while admitted < len(slots) and waiting and self.prompts:
            if waiting[0] // self.group >= self.prompts.end:
                self.prompts.prefill_next()
            count = min(len(slots) - admitted, self.prompts.end * self.group - waiting[0])
            targets = self._index(slots[admitted : admitted + count])
            row = self._index([waiting.popleft() for _ in range(count)])
            prompt_index = row // self.group
            last = self.batch.prompt_lengths[prompt_index] - 1
            self.cache.fill(targets, self.prompts, prompt_index)
            # The prompt's last token is the first one to be decoded; it predicts the first token of the completion.
            self.row[targets], self.position[targets], self.prompt[targets] = row, last, last + 1
            self.token[targets] = self.batch.prompt_ids[prompt_index, last]
            admitted += count
        if not waiting:
            self.prompts = None
        return slots[admitted:]

    def _compact(self, free: list[int], active: int, span: int) -> int:
        """Move the last active slots into free ones, so that active slots come first; returns the number of active slots."""
        remaining = active - len(free)
        sources = self._index([slot for slot in range(remaining, active) if slot not in free])
        targets = self._index([slot for slot in free if slot < remaining])
        if len(targets):
            self.cache.move(sources, targets, span)
            for state in (self.row, self.token, self.position, self.prompt):
                state[targets] = state[sources]
        self.row[remaining:active] = self.rows
        self.position[remaining:active] = 0
        return remaining

    def _step(self, slots: int, span: int) -> None:
        """Sample one token for each of the first slots. No value is transferred to the host."""
        row, token, position, prompt = (s[:slots] for s in (self.row, self.token, self.position, self.prompt))
        attend = self.cache.attention(position, span)
        hidden = self.decoder(token[:, None], position[:, None], attend)[:, 0]
        # An idle slot's column may be out of range, so it is clamped; what it writes goes to the dummy row.
        column = (position + 1 - prompt).clamp(0, self.tokens.shape[1] - 1)
        uniforms = None if self.uniforms is None else self.uniforms[row, column]
        logits = self._logits(hidden)
        chosen, logps = choose(logits, self.sampling, uniforms, self.probs[:slots])
        self.tokens[row, column], self.logps[row, column] = chosen, logps
        before = self.ends[row]
        # Not torch.isin, which sorts where there are many values and then waits for the GPU, as a graph must not.
        is_end = (chosen[:, None] == self.eos_token_ids).any(dim=1)
        ends_now = (before == 0) & (column < self.limit) & is_end
        self.ends[row] = torch.where(ends_now, column + 1, before)
        token.copy_(chosen)
        position.add_(1)

    def _logits(self, hidden: Tensor) -> Tensor:
        """(R', H) to (R', V)."""
        head, weight, logits = self.decoder.head, self.decoder.head.weight, self.logits[: len(hidden)]
        hidden = head.scaled(hidden)
        if logits.is_cuda:
            return head.finish(torch.mm(hidden, weight.T, out=logits))
        if is_measured(weight):
            return head.finish(product(hidden, weight))
        # Few rows and many words: on a CPU the transposed product of a small head is a third faster, transposing it back included.
        transposed = self.transposed[: logits.numel()].view(len(weight), len(hidden))
        return head.finish(logits.copy_(torch.mm(weight, hidden.T, out=transposed).T))

    def rollout(self, texts: tuple[str, ...], pad_token_id: int) -> Rollout:
        """The finished rollout, as wide as its longest row."""
        ends = self.ends[: self.rows]
        finished = ends > 0
        lengths = torch.where(finished, ends, self.limit)
        width = int(lengths.max())
        mask = torch.arange(width, device=ends.device) < lengths[:, None]
        return Rollout(
            self.batch.prompt_ids,
            self.batch.prompt_lengths,
            torch.where(mask, self.tokens[: self.rows, :width], pad_token_id),
            mask,
            torch.where(mask, self.logps[: self.rows, :width], 0.0),
            finished,
            texts,
        )

    def _index(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int64, device=self.row.device)
