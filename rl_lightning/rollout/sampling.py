"""From logits to tokens: temperature, the optional filters, and a draw that depends on nothing but its own number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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

    max_rollout_rows: int = 256
    """At most this many sequences decode at once; fewer need less memory for their cache."""

    def __post_init__(self) -> None:
        if self.num_generations < 2:
            raise UserError(
                f"sampling.num_generations: {self.num_generations} is too few: a completion is judged against the others "
                "of its group; use 2 or more (8 is usual)"
            )
        for name in ("max_new_tokens", "max_rollout_rows"):
            require(f"sampling.{name}", getattr(self, name), getattr(self, name) >= 1, "at least 1")
        require(
            "sampling.temperature", self.temperature, self.temperature > 0, "above 0 (evaluation is greedy by itself)"
        )
        require("sampling.top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        require("sampling.top_k", self.top_k, self.top_k >= 0, "0 or more")
        require("sampling.min_p", self.min_p, 0 <= self.min_p < 1, "0 or more and below 1")


def token_log_probs(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution that tokens are drawn from.

    Args:
        logits: (rows, V) any float dtype.
        sampling: temperature and filters, applied in the order top-k, top-p, min-p.

    Returns:
        (rows, V) float32 log-probs; -inf where filtered out.
    """
    logits = logits.float() / sampling.temperature
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
    return logits.log_softmax(dim=-1)


def draw(log_probs: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse-CDF sampling: one uniform number a row decides its token.

    Because a row's token depends only on its own number, a rollout is the same however its rows are batched.

    Args:
        log_probs: (rows, V) float32.
        uniforms: (rows,) float64 in [0, 1).

    Returns:
        (rows,) int64 token ids, never one of probability zero.
    """
    cdf = log_probs.exp().double().cumsum(dim=-1)
    threshold = uniforms[:, None] * cdf[:, -1:]
    return torch.searchsorted(cdf, threshold, right=True).squeeze(1).clamp(max=log_probs.shape[-1] - 1)
