"""Token log-probs straight from hidden states: at no time is more than one tile of logits alive, some tokens by some words.

A 3B Qwen2.5 has 608 KB of float32 logits a token; a micro-batch of 8,000 tokens would need 4.9 GB for them and as much again
for their gradient. The sums over the vocabulary run along with the tiles, as those over keys do in FlashAttention (arXiv
2205.14135), and a tile stays in a processor's cache, where whole rows of logits do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TILE_LOGITS = 2**22
"""Logits alive at once, 17 MB in float32, and as many exponentials of them."""

TILE_WORDS = 4096
"""Words of a tile at most, so that there are enough tokens in it for the matrix product."""

Tile = tuple[int, int]
"""Tokens, words."""

_ABSENT = -1e30
"""A logit that is none: beside any other its exponential is 0, and that times it is 0 as well, where infinity would give NaN."""


def tile_of(vocabulary: int) -> Tile:
    """Tokens and words that are taken together."""
    words = min(vocabulary, TILE_WORDS)
    return TILE_LOGITS // words, words


@dataclass
class _Others:
    """What is known of one chunk of tokens: the target's logit, and means over all other words, weighed with their probabilities.

    The target stands apart so that a token of probability near 1 has a small slope, not the rounded difference of two large ones.
    The entropy's slope is such a difference, so for it the means are summed in float32 whatever the head's dtype.

    Attributes:
        target: (C,) logit of the target.
        log_sum: (C,) logarithm of the sum of the others' exponentials.
        entropy: (C,) of the distribution of the others alone.
        embedding: (C, H) their mean embedding, if asked for.
        logp_embedding: (C, H) the mean of their log-prob among themselves times embedding, if asked for.
    """

    target: Tensor
    log_sum: Tensor
    entropy: Tensor
    embedding: Tensor | None
    logp_embedding: Tensor | None


def _others(
    hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, buffers: Tensor, mean: bool, of_entropy: bool
) -> _Others:
    largest = hidden.new_full((len(hidden),), _ABSENT, dtype=torch.float32)
    target, total, weighed = (torch.zeros_like(largest) for _ in range(3))
    embedding = largest.new_zeros(hidden.shape) if mean else None
    logp_embedding = largest.new_zeros(hidden.shape) if mean and of_entropy else None
    for first in range(0, len(head), buffers.shape[2]):
        words = head[first : first + buffers.shape[2]]
        logits, exps = buffers[:, : len(hidden), : len(words)]
        _product(hidden.to(head.dtype), words.T, out=logits)
        if temperature != 1:
            logits /= temperature
        at = (targets - first).clamp(0, len(words) - 1)[:, None]
        here, there = targets[:, None] == at + first, logits.gather(1, at)
        target += torch.where(here, there, 0.0)[:, 0]
        logits.scatter_(1, at, torch.where(here, _ABSENT, there))
        larger = torch.maximum(largest, logits.amax(dim=1))
        shrink, lower = (largest - larger).exp(), largest - larger
        torch.exp(logits.sub_(larger[:, None]), out=exps)
        weighed = shrink * (weighed + lower * total) + torch.bmm(exps[:, None], logits[:, :, None]).flatten()
        total = shrink * total + exps.sum(dim=1)
        if embedding is not None:
            summed = words.float() if of_entropy else words
            if logp_embedding is not None:
                logp_embedding.add_(embedding * lower[:, None]).mul_(shrink[:, None]).add_((exps * logits) @ summed)
            embedding.mul_(shrink[:, None]).add_(exps.to(summed.dtype) @ summed)
        largest = larger
    log_total = total.log()
    if embedding is not None:
        embedding /= total[:, None]
        if logp_embedding is not None:
            logp_embedding.div_(total[:, None]).sub_(embedding * log_total[:, None])
    return _Others(target, largest + log_total, log_total - weighed / total, embedding, logp_embedding)


class _TiledLogProbs(torch.autograd.Function):
    """Log-probs and entropies in float32, tile by tile; the head is frozen and gets no gradient.

    Nothing is recomputed in backward: the derivative of a token's log-prob by its hidden state, the target's embedding less the
    expected one, is a vector like the hidden state itself, and is at hand when the token's probabilities are.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, tile: Tile, of_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropy = torch.empty_like(logps)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        entropy_slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] and of_entropy else None
        # Two buffers serve all tiles: on a CPU to allocate this much anew costs more than to fill it.
        buffers = logps.new_empty(2, min(tile[0], len(hidden)), min(tile[1], len(head)))
        for start in range(0, len(hidden), tile[0]):
            part = slice(start, start + tile[0])
            others = _others(hidden[part], head, targets[part], temperature, buffers, slope is not None, of_entropy)
            logp, log_rest = F.logsigmoid(others.target - others.log_sum), F.logsigmoid(others.log_sum - others.target)
            p, rest = logp.exp(), log_rest.exp()
            logps[part] = logp
            entropy[part] = rest * (others.entropy - log_rest) - p * logp
            if slope is None or others.embedding is None:
                continue
            own = head[targets[part]]
            slope[part] = (own - others.embedding) * (rest / temperature)[:, None]
            if entropy_slope is not None and others.logp_embedding is not None:  # by a logit it is -p (log p + entropy)
                up = others.logp_embedding + others.embedding * (log_rest + entropy[part])[:, None]
                here = (p * (logp + entropy[part]))[:, None] * own
                entropy_slope[part] = (here + rest[:, None] * up) / -temperature
        ctx.save_for_backward(slope, entropy_slope)
        if not of_entropy:
            ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropy: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        slope, entropy_slope = ctx.saved_tensors
        grad = slope * grad_logps[:, None]
        if entropy_slope is not None:
            grad = grad + entropy_slope * grad_entropy[:, None]
        return grad.to(slope.dtype), None, None, None, None, None


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """a @ b, in float32 whatever it was computed in."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def tiled_log_probs(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    of_entropy: bool = False,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-prob of each target token, and the entropy of the distribution that it came from.

    Args:
        hidden: (M, H) last hidden states at the positions that predict the targets.
        head: (V, H) frozen output embedding, of at least two words.
        targets: (M,) int64.
        temperature: divides the logits.
        of_entropy: whether the entropy has a gradient too, which costs one more product.
        tile: tokens and words whose logits are alive at once; None: `tile_of`.

    Returns:
        (M,) float32 log-probs, differentiable by `hidden`; (M,) float32 entropy in nats.
    """
    # Inside autocast the products would be cast once more; the dtype is the head's, here and in backward alike.
    with torch.autocast(hidden.device.type, enabled=False):
        return _TiledLogProbs.apply(hidden, head, targets, temperature, tile or tile_of(len(head)), of_entropy)
