"""The decode loop: prefill each prompt once, give its cache to all rows of its group, drop rows as they end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rl_lightning.rollout.cache import GroupCache
from rl_lightning.rollout.sampling import Sampling, draw, token_log_probs
from rl_lightning.types import PromptBatch, Rollout

_DROP_SHARE = 0.25
"""Ended rows leave the batch once they are this share of it: leaving copies the cache, so a few at a time is dearer than
decoding them a little longer."""


@torch.no_grad()
def sample_groups(
    model: Any,
    batch: PromptBatch,
    sampling: Sampling,
    end_token_ids: Tensor,
    decode_text: Callable[[Tensor], str],
    generator: torch.Generator | None,
    pad_token_id: int = 0,
    ended: Callable[[int, str], None] | None = None,
) -> Rollout:
    """Sample a group of completions for every prompt.

    Args:
        model: a causal language model in eval mode (a transformers model or anything called the same way).
        batch: B prompts on the model's device.
        sampling: how to draw.
        end_token_ids: (E,) int64, the tokens that end a completion.
        decode_text: token ids of one completion, without its end token, to text.
        generator: a CPU generator, which advances by exactly N x max_new_tokens draws; None decodes one completion a prompt
            greedily (N = B).
        pad_token_id: fills rows after their end.
        ended: is given a row's number and its text while other rows are still being sampled.

    Returns:
        the rollout; row n answers prompt n // G.
    """
    group = 1 if generator is None else sampling.num_generations
    rows = len(batch.problems) * group
    shape = (rows, sampling.max_new_tokens)
    uniforms = None if generator is None else torch.rand(shape, generator=generator, dtype=torch.float64)
    device = batch.prompt_ids.device
    tokens = torch.full(shape, pad_token_id, dtype=torch.int64, device=device)
    logps = torch.zeros(shape, dtype=torch.float32, device=device)
    ends = torch.zeros(rows, dtype=torch.int64, device=device)
    texts = [""] * rows

    def tell(row: int, length: int) -> None:
        texts[row] = decode_text(tokens[row, :length].cpu())
        if ended is not None:
            ended(row, texts[row])

    for first in range(0, rows, sampling.max_rollout_rows):
        span = torch.arange(first, min(first + sampling.max_rollout_rows, rows), device=device)
        noise = None if uniforms is None else uniforms[first : first + len(span)].to(device)
        _Decoder(model, batch, span, group, sampling, end_token_ids, noise, tell).run(tokens, logps, ends)
    finished = ends > 0
    lengths = torch.where(finished, ends, sampling.max_new_tokens)
    width = int(lengths.max())
    mask = torch.arange(width, device=device) < lengths[:, None]
    return Rollout(
        batch.prompt_ids,
        batch.prompt_lengths,
        torch.where(mask, tokens[:, :width], pad_token_id),
        mask,
        torch.where(mask, logps[:, :width], 0.0),
        finished,
        tuple(texts),
    )


@dataclass
class _Decoder:
    """Rows that decode together.

    Attributes:
        rows: (R,) int64, the rows of the rollout that this decoder fills.
        noise: (R, T) float64 uniforms, or None to be greedy.
        tell: is called once a row, with its number and its length without end token.
    """

    model: Any
    batch: PromptBatch
    rows: Tensor
    group: int
    sampling: Sampling
    end_token_ids: Tensor
    noise: Tensor | None
    tell: Callable[[int, int], None]

    def run(self, tokens: Tensor, logps: Tensor, ends: Tensor) -> None:
        """Write tokens and log-probs (N, T) of this decoder's rows, and in `ends` (N,) their length if they ended."""
        cache, logits, mask, positions = self._prefill()
        live = torch.arange(len(self.rows), device=self.rows.device)
        for step in range(self.sampling.max_new_tokens):
            chosen, chosen_logps = self._choose(logits, live, step)
            alive = ends[self.rows[live]] == 0
            row = self.rows[live]
            tokens[row, step], logps[row, step] = chosen, chosen_logps
            ends[row] = torch.where(alive & torch.isin(chosen, self.end_token_ids), step + 1, ends[row])
            alive = ends[row] == 0
            left = int(alive.sum())
            if left == 0 or step + 1 == self.sampling.max_new_tokens:
                break
            if left <= (1 - _DROP_SHARE) * len(live):
                self._leave(row[~alive], ends)
                keep = alive.nonzero().squeeze(1)
                cache.keep(keep)
                live, mask, positions, chosen = live[keep], mask[keep], positions[keep], chosen[keep]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
            positions = positions + 1
            logits = self.model(
                input_ids=chosen[:, None],
                attention_mask=mask,
                position_ids=positions[:, None],
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]

        self._leave(row, ends)

    def _leave(self, rows: Tensor, ends: Tensor) -> None:
        for row, end in zip(rows.tolist(), ends[rows].tolist(), strict=True):
            self.tell(row, end - 1 if end else self.sampling.max_new_tokens)

    def _choose(self, logits: Tensor, live: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """(rows,) tokens and their log-probs."""
        if self.noise is None:
            log_probs = logits.float().log_softmax(dim=-1)
            chosen = log_probs.argmax(dim=-1)
        else:
            log_probs = token_log_probs(logits, self.sampling)
            chosen = draw(log_probs, self.noise[live, step])
        return chosen, log_probs.gather(1, chosen[:, None]).squeeze(1)

    def _prefill(self) -> tuple[GroupCache, Tensor, Tensor, Tensor]:
        """Run each prompt once, left-padded so that all caches end at the same place, and hand it to its rows."""
        prompts, owner = torch.unique(self.rows // self.group, return_inverse=True)
        ids, mask = left_padded(self.batch.prompt_ids[prompts], self.batch.prompt_lengths[prompts])
        cache = GroupCache()
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.give_to(owner, room=self.sampling.max_new_tokens)
        return cache, out.logits[owner, -1], mask[owner], positions[owner, -1]


def left_padded(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Move each row's tokens to the right end.

    Args:
        ids: (B, P) int64, right-padded.
        lengths: (B,) int64.

    Returns:
        (B, P') ids and (B, P') int64 mask, with P' the longest of `lengths`.
    """
    width = int(lengths.max())
    source = torch.arange(width, device=ids.device) - (width - lengths)[:, None]
    return ids.gather(1, source.clamp(min=0)), (source >= 0).long()
