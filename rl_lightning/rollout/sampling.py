"""Sample tokens from logits: temperature, optional filters, and inverse-CDF sampling with one uniform number per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.memory.breakdown import StepShape
from rl_lightning.types import UserError, require


@dataclass
class Sampling:
    """How completions are sampled."""

    num_generations: int = 8
    """G, completions per prompt; at least 2, because the baseline of an advantage is the mean of a group."""

    max_new_tokens: int = 512
    """Length limit of a completion, in tokens; at least 1."""

    temperature: float = 1.0
    """Divides the logits, in the rollout and in the loss; above 0."""

    top_p: float = 1.0
    """Keep the most likely tokens that together reach this probability; in (0, 1], 1 keeps all. Filters bias the probability
    ratio."""

    top_k: int = 0
    """Keep this many of the most likely tokens; 0 or more, 0 keeps all."""

    min_p: float = 0.0
    """Drop tokens whose probability is below this share of the most likely token's; in [0, 1), 0 keeps all."""

    max_rollout_rows: int | Literal["auto"] = "auto"
    """Sequences that decode at once, at most; at least 1. Fewer need less memory for the cache; auto: as many as fit in the
    device's memory. On a GPU another number rounds otherwise, and a token is sampled otherwise where rounding decides."""

    max_resample: int = 1
    """Dynamic sampling (DAPO): above 1, extra prompts are sampled to replace groups without reward variance, which have no
    gradient, up to this many times prompts_per_step in total; at least 1. 1 is plain GRPO."""

    min_variance_share: float = 1.0
    """With max_resample above 1: stop sampling extra prompts when this share of a rollout's groups has reward variance; in (0,
    1]."""

    def __post_init__(self) -> None:
        if self.num_generations < 2:
            raise UserError(
                f"sampling.num_generations: {self.num_generations} is too few: an advantage compares a completion with "
                "the others of its group; use 2 or more (8 is usual)"
            )
        rows = self.max_rollout_rows
        require("sampling.max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "at least 1")
        require("sampling.max_rollout_rows", rows, rows == "auto" or rows >= 1, "at least 1, or auto")
        require(
            "sampling.temperature", self.temperature, self.temperature > 0, "above 0 (evaluation is greedy by default)"
        )
        require("sampling.top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        require("sampling.top_k", self.top_k, self.top_k >= 0, "0 or more")
        require("sampling.max_resample", self.max_resample, self.max_resample >= 1, "at least 1; 1 turns it off")
        require(
            "sampling.min_variance_share",
            self.min_variance_share,
            0 < self.min_variance_share <= 1,
            "above 0 and at most 1",
        )
        require("sampling.min_p", self.min_p, 0 <= self.min_p < 1, "0 or more and below 1")

    def step_shape(self, prompts: int, prompt_tokens: int) -> StepShape:
        """The size of a training step, for the memory plan.

        Args:
            prompts: B, prompts per step.
            prompt_tokens: P, tokens of the longest prompt.
        """
        filtered = self.top_p < 1 or self.top_k > 0 or self.min_p > 0
        return StepShape(prompts, self.num_generations, prompt_tokens, self.max_new_tokens, filtered)


def draw_uniforms(generator: torch.Generator, rows: int, length: int) -> Tensor:
    """The uniform numbers that decide each row's tokens; the generator advances by exactly rows x length numbers.

    Args:
        generator: a generator on the CPU.
        rows: N, completions.
        length: T, the length limit of a completion.

    Returns:
        (N, T) float64 in [0, 1).
    """
    return torch.rand((rows, length), generator=generator, dtype=torch.float64)


def choose(logits: Tensor, sampling: Sampling, uniforms: Tensor | None, out: Tensor) -> tuple[Tensor, Tensor]:
    """Choose the next token of every row.

    Args:
        logits: (rows, V) any float dtype; they may be overwritten.
        sampling: temperature and filters.
        uniforms: (rows,) float64 in [0, 1), or None for the most likely token at temperature 1.
        out: (rows, V) float32, buffer for the probabilities: to allocate a new one costs more than to fill it.

    Returns:
        (rows,) int64 tokens; (rows,) float32 log-probs of these under the distribution that they were sampled from. Logits that are
        no distribution (a NaN, +inf, or nothing above -inf) give some token of the vocabulary, and NaN.
    """
    if uniforms is None:
        probs = torch.softmax(logits, dim=-1, dtype=torch.float32, out=out)
        chosen = logits.argmax(dim=-1)
    else:
        probs = token_probs(logits, sampling, out)
        chosen = draw(probs, uniforms)
    return chosen, probs.gather(1, chosen[:, None]).squeeze(1).log()


def token_probs(logits: Tensor, sampling: Sampling, out: Tensor | None = None) -> Tensor:
    """The distribution that tokens are sampled from.

    Args:
        logits: (rows, V) any float dtype; they may be overwritten.
        sampling: temperature and filters, applied in the order top-k, top-p, min-p.
        out: (rows, V) float32, buffer for the result; None allocates one.

    Returns:
        (rows, V) float32 probabilities; 0 where filtered out.
    """
    if sampling.temperature != 1:
        logits = logits.float().div_(sampling.temperature)
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
        # A token is dropped if those before it already reach top_p, so the first one always stays.
        beyond = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    if sampling.min_p > 0:
        probs = logits.softmax(dim=-1)
        logits = logits.masked_fill(probs < sampling.min_p * probs.amax(dim=-1, keepdim=True), -torch.inf)
    return torch.softmax(logits, dim=-1, dtype=torch.float32, out=out)


_BLOCK = 512
"""Tokens in a block. Probabilities are summed by block first, so that the running sum is over V / 512 blocks and the tokens of
one block, and not over V tokens."""

SMALL_VOCAB = 4096
"""Up to this many vocabulary tokens, a running sum over all of them takes less time than two dozen small operations on blocks."""


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse-CDF sampling: one uniform number decides the token of a row.

    A row's token depends only on its own number and logits, so how rows are batched changes a rollout only as it rounds these:
    where a number lies within the rounding of a token's edge, it draws the neighbour.

    Args:
        probs: (rows, V) float32, each row's sum about 1.
        uniforms: (rows,) float64 in [0, 1).

    Returns:
        (rows,) int64 token ids, never one of probability zero; any one where probabilities are NaN.
    """
    vocabulary = probs.shape[1]
    if vocabulary <= SMALL_VOCAB:
        sums = probs.cumsum(dim=1, dtype=torch.float64)
        return _first_above(sums, uniforms[:, None] * sums[:, -1:]).squeeze(1)
    whole = vocabulary - vocabulary % _BLOCK
    block_sums = [probs[:, :whole].unflatten(1, (-1, _BLOCK)).sum(dim=2), probs[:, whole:].sum(dim=1, keepdim=True)]
    sums = torch.cat(block_sums, dim=1).double().cumsum(dim=1)
    threshold = uniforms[:, None] * sums[:, -1:]
    block = _first_above(sums, threshold)
    rest = (threshold - F.pad(sums, (1, 0)).gather(1, block)).clamp(min=0)
    tokens = block * _BLOCK + torch.arange(_BLOCK, device=probs.device)
    inside = probs.gather(1, tokens.clamp(max=vocabulary - 1)) * (tokens < vocabulary)
    drawn = tokens.gather(1, _first_above(inside.double().cumsum(dim=1), rest)).squeeze(1)
    return drawn.clamp(max=vocabulary - 1)  # of NaN it may be one after the last


def _first_above(sums: Tensor, threshold: Tensor) -> Tensor:
    """(rows, 1) index at which each row's running sum first exceeds its threshold; if rounding keeps it below, the last index at
    which it rises."""
    last = torch.searchsorted(sums, sums[:, -1:].contiguous()).clamp(max=sums.shape[1] - 1)  # NaN is above all sums
    return torch.searchsorted(sums, threshold, right=True).minimum(last)
