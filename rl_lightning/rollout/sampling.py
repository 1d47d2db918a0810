"""From logits to tokens: temperature, the optional filters, and a draw that depends on nothing but its own number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.types import UserError, require


@dataclass
class Sampling:
    """How completions are drawn."""

    num_generations: int = 8
    """Completions a prompt (G); at least 2, for a completion is judged against the others of its group."""

    max_new_tokens: int = 512
    """Length limit of a completion, tokens."""

    temperature: float = 1.0
    """Divides the logits, in the rollout and in the loss alike; > 0."""

    top_p: float = 1.0
    """Keep the most likely tokens that together reach this probability; in (0, 1], 1 keeps all. Filters bias the ratio."""

    top_k: int = 0
    """Keep this many of the most likely tokens; 0 keeps all."""

    min_p: float = 0.0
    """Drop tokens less likely than this share of the most likely one; in [0, 1)."""

    max_rollout_rows: int | Literal["auto"] = "auto"
    """At most this many sequences decode at once; fewer need less memory for their cache; auto: what the card has room for."""

    max_resample: int = 1
    """Groups whose answers all earned the same teach nothing; above 1, further prompts are sampled in their place, up to so many
    times prompts_per_step in all (dynamic sampling, DAPO). 1 is plain GRPO."""

    live_share: float = 1.0
    """With max_resample above 1: enough when this share of a step's groups has something to teach; in (0, 1]."""

    def __post_init__(self) -> None:
        if self.num_generations < 2:
            raise UserError(
                f"sampling.num_generations: {self.num_generations} is too few: a completion is judged against the others "
                "of its group; use 2 or more (8 is usual)"
            )
        rows = self.max_rollout_rows
        require("sampling.max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "at least 1")
        require("sampling.max_rollout_rows", rows, rows == "auto" or rows >= 1, "at least 1, or auto")
        require(
            "sampling.temperature", self.temperature, self.temperature > 0, "above 0 (evaluation is greedy by itself)"
        )
        require("sampling.top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        require("sampling.top_k", self.top_k, self.top_k >= 0, "0 or more")
        require("sampling.max_resample", self.max_resample, self.max_resample >= 1, "at least 1, which is off")
        require("sampling.live_share", self.live_share, 0 < self.live_share <= 1, "above 0 and at most 1")
        require("sampling.min_p", self.min_p, 0 <= self.min_p < 1, "0 or more and below 1")


def choose(logits: Tensor, sampling: Sampling, uniforms: Tensor | None, out: Tensor) -> tuple[Tensor, Tensor]:
    """The next token of every row.

    Args:
        logits: (rows, V) any float dtype; they may be overwritten.
        sampling: temperature and filters.
        uniforms: (rows,) float64 in [0, 1), or None for the likeliest token at temperature 1.
        out: (rows, V) float32, room for the probabilities: to allocate it anew costs more than to fill it.

    Returns:
        (rows,) int64 tokens; (rows,) float32 log-probs of these under the distribution that they were drawn from.
    """
    if uniforms is None:
        probs = torch.softmax(logits, dim=-1, dtype=torch.float32, out=out)
        chosen = logits.argmax(dim=-1)
    else:
        probs = token_probs(logits, sampling, out)
        chosen = draw(probs, uniforms)
    return chosen, probs.gather(1, chosen[:, None]).squeeze(1).log()


def token_probs(logits: Tensor, sampling: Sampling, out: Tensor | None = None) -> Tensor:
    """The distribution that tokens are drawn from.

    Args:
        logits: (rows, V) any float dtype; they may be overwritten.
        sampling: temperature and filters, applied in the order top-k, top-p, min-p.
        out: (rows, V) float32, where to put it.

    Returns:
        (rows, V) float32; 0 where filtered out.
    """
    if sampling.temperature != 1:
        logits = logits.float().div_(sampling.temperature)
    if 0 < sampling.top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[:, -1:], -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
        # A token goes when those before it already reach top_p; so the first one always stays.
        beyond = ordered.cumsum(dim=-1) - ordered >= sampling.top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    if sampling.min_p > 0:
        probs = logits.softmax(dim=-1)
        logits = logits.masked_fill(probs < sampling.min_p * probs.amax(dim=-1, keepdim=True), -torch.inf)
    return torch.softmax(logits, dim=-1, dtype=torch.float32, out=out)


_BLOCK = 512
"""Tokens whose probabilities are summed first: the running sum then goes over V / 512 blocks and one block's tokens, not over V."""


FEW_WORDS = 4096
"""In a vocabulary of up to so many tokens the running sum over all takes less time than two dozen small operations on blocks."""


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse-CDF sampling: one uniform number a row decides its token.

    Because a row's token depends only on its own number, a rollout is the same however its rows are batched.

    Args:
        probs: (rows, V) float32, each row's sum about 1.
        uniforms: (rows,) float64 in [0, 1).

    Returns:
        (rows,) int64 token ids, never one of probability zero.
    """
    vocabulary = probs.shape[1]
    if vocabulary <= FEW_WORDS:
        sums = probs.cumsum(dim=1, dtype=torch.float64)
        return _first_above(sums, uniforms[:, None] * sums[:, -1:]).squeeze(1)
    whole = vocabulary - vocabulary % _BLOCK
    parts = [probs[:, :whole].unflatten(1, (-1, _BLOCK)).sum(dim=2), probs[:, whole:].sum(dim=1, keepdim=True)]
    sums = torch.cat(parts, dim=1).double().cumsum(dim=1)
    wanted = uniforms[:, None] * sums[:, -1:]
    block = _first_above(sums, wanted)
    rest = (wanted - F.pad(sums, (1, 0)).gather(1, block)).clamp(min=0)
    tokens = block * _BLOCK + torch.arange(_BLOCK, device=probs.device)
    inside = probs.gather(1, tokens.clamp(max=vocabulary - 1)) * (tokens < vocabulary)
    return tokens.gather(1, _first_above(inside.double().cumsum(dim=1), rest)).squeeze(1)


def _first_above(rising: Tensor, wanted: Tensor) -> Tensor:
    """(rows, 1) where each row of running sums first exceeds the wanted one; where rounding keeps it below, the last rise."""
    last = torch.searchsorted(rising, rising[:, -1:].contiguous())
    return torch.searchsorted(rising, wanted, right=True).minimum(last)
