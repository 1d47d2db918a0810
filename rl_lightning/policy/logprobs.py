"""Compute token log-probs and entropies from hidden states, with one tile of logits (tokens x part of the vocabulary) at a time.

Qwen2.5-3B has 608 KB of float32 logits per token; a micro-batch of 8,000 tokens would need 4.9 GB for them and as much again for
their gradient. The sums over the vocabulary are accumulated over the tiles, as FlashAttention (arXiv 2205.14135) accumulates sums
over keys. A tile fits in a processor's cache, and whole rows of logits do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TILE_LOGITS = 2**22
"""Logits in memory at once, 17 MB in float32, and as many exponentials of them."""

TILE_VOCAB = 4096
"""Vocabulary tokens in a tile, at most, so that it has enough tokens of the batch for an efficient matrix product."""

Tile = tuple[int, int]
"""A tile's size: tokens of the batch, tokens of the vocabulary."""

_MASKED_LOGIT = -1e30
"""Logit that removes a token: its exponential is 0 relative to any other logit's, and so is their product, where infinity would
give NaN."""


def tile_of(vocabulary: int) -> Tile:
    """The default tile for a vocabulary of this size."""
    width = min(vocabulary, TILE_VOCAB)
    return TILE_LOGITS // width, width


@dataclass
class _VocabStats:
    """Statistics of C tokens of the batch: the target's logit, and means over the non-targets, weighted by their probabilities.

    The non-targets are all vocabulary tokens except the target. The target is kept separate so that the gradient of a token with a
    probability near 1 is small and exact, and not the rounded difference of two large numbers. The entropy's gradient is such a
    difference, so for it the means are accumulated in float32 whatever the head's dtype.

    Attributes:
        target: (C,) logit of the target.
        target_slope: (C,) derivative of the target's logit by its product with the head; 1 where logits are not capped.
        log_sum: (C,) logarithm of the sum of the non-targets' exponentials.
        entropy: (C,) entropy of the distribution over the non-targets alone.
        embedding: (C, H) mean embedding of the non-targets, if requested, each times its slope.
        logp_embedding: (C, H) mean of log-prob among the non-targets times embedding, if requested, each times its slope.
    """

    target: Tensor
    target_slope: Tensor | float
    log_sum: Tensor
    entropy: Tensor
    embedding: Tensor | None
    logp_embedding: Tensor | None


def _vocab_stats(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    temperature: float,
    buffers: Tensor,
    mean: bool,
    entropy_gradient: bool,
    softcap: float | None,
) -> _VocabStats:
    """Accumulate the statistics over the vocabulary, tile by tile, with a running maximum of the logits (online softmax)."""
    running_max = hidden.new_full((len(hidden),), _MASKED_LOGIT, dtype=torch.float32)
    target, total, weighted = (torch.zeros_like(running_max) for _ in range(3))
    embedding = running_max.new_zeros(hidden.shape) if mean else None
    logp_embedding = running_max.new_zeros(hidden.shape) if mean and entropy_gradient else None
    for first in range(0, len(head), buffers.shape[2]):
        rows = head[first : first + buffers.shape[2]]
        logits, exps = buffers[:, : len(hidden), : len(rows)]
        slopes = _write_logits(hidden.to(head.dtype), rows, temperature, softcap, out=logits)
        column = (targets - first).clamp(0, len(rows) - 1)[:, None]
        in_tile, logit = targets[:, None] == column + first, logits.gather(1, column)
        target += torch.where(in_tile, logit, 0.0)[:, 0]
        logits.scatter_(1, column, torch.where(in_tile, _MASKED_LOGIT, logit))
        new_max = torch.maximum(running_max, logits.amax(dim=1))
        rescale, shift = (running_max - new_max).exp(), running_max - new_max
        torch.exp(logits.sub_(new_max[:, None]), out=exps)
        weighted = rescale * (weighted + shift * total) + torch.bmm(exps[:, None], logits[:, :, None]).flatten()
        total = rescale * total + exps.sum(dim=1)
        if embedding is not None:
            summed = rows.float() if entropy_gradient else rows
            if slopes is not None:
                exps *= slopes
            if logp_embedding is not None:
                logp_embedding.add_(embedding * shift[:, None]).mul_(rescale[:, None]).add_((exps * logits) @ summed)
            embedding.mul_(rescale[:, None]).add_(exps.to(summed.dtype) @ summed)
        running_max = new_max
    log_total = total.log()
    if embedding is not None:
        embedding /= total[:, None]
        if logp_embedding is not None:
            logp_embedding.div_(total[:, None]).sub_(embedding * log_total[:, None])
    target_slope = 1.0 if softcap is None else 1 - (target * temperature / softcap).square()
    return _VocabStats(
        target, target_slope, running_max + log_total, log_total - weighted / total, embedding, logp_embedding
    )


class _TiledLogProbs(torch.autograd.Function):
    """Log-probs and entropies in float32, tile by tile.

    With a frozen head nothing is recomputed in backward. The gradient of a token's log-prob with respect to its hidden state is the
    target's embedding minus the expected one, a vector of the hidden state's size, which forward computes along with the token's
    probabilities. A trained head's gradient is as large as the head, so it needs the gradient of each log-prob, and the
    probabilities are computed once more, tile by tile.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        words: int,
        targets: Tensor,
        temperature: float,
        tile: Tile,
        entropy_gradient: bool,
        softcap: float | None,
    ) -> tuple[Tensor, Tensor]:
        head = weight[:words]
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropy, normaliser = torch.empty_like(logps), torch.empty_like(logps)
        logp_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        entropy_grad = torch.empty_like(hidden) if ctx.needs_input_grad[0] and entropy_gradient else None
        # Two buffers are reused for all tiles: on a CPU, to allocate this much memory costs more than to fill it.
        buffers = logps.new_empty(2, min(tile[0], len(hidden)), min(tile[1], len(head)))
        for start in range(0, len(hidden), tile[0]):
            part = slice(start, start + tile[0])
            stats = _vocab_stats(
                hidden[part],
                head,
                targets[part],
                temperature,
                buffers,
                logp_grad is not None,
                entropy_gradient,
                softcap,
            )
            # Of the target: p; of all non-targets together: p_rest = 1 - p.
            logp, logp_rest = F.logsigmoid(stats.target - stats.log_sum), F.logsigmoid(stats.log_sum - stats.target)
            p, p_rest = logp.exp(), logp_rest.exp()
            logps[part], normaliser[part] = logp, stats.target - logp
            entropy[part] = p_rest * (stats.entropy - logp_rest) - p * logp
            if logp_grad is None or stats.embedding is None:
                continue
            target = head[targets[part]]
            if softcap is not None:
                target = target * torch.as_tensor(stats.target_slope)[:, None]
            logp_grad[part] = (target - stats.embedding) * (p_rest / temperature)[:, None]
            if (
                entropy_grad is not None and stats.logp_embedding is not None
            ):  # d entropy / d logit = -p (log p + entropy)
                rest_term = stats.logp_embedding + stats.embedding * (logp_rest + entropy[part])[:, None]
                target_term = (p * (logp + entropy[part]))[:, None] * target
                entropy_grad[part] = (target_term + p_rest[:, None] * rest_term) / -temperature
        inputs = (hidden, weight, targets, logps, entropy, normaliser) if ctx.needs_input_grad[1] else ()
        ctx.save_for_backward(logp_grad, entropy_grad, *inputs)
        ctx.settings = {"words": words, "temperature": temperature, "tile": tile, "softcap": softcap}
        ctx.entropy_gradient = entropy_gradient
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        logp_grad, entropy_grad, *inputs = ctx.saved_tensors
        grad = head_grad = None
        if logp_grad is not None:
            grad = logp_grad * grad_logps[:, None]
            if entropy_grad is not None:
                grad += entropy_grad * grad_entropy[:, None]
            grad = grad.to(logp_grad.dtype)
        if inputs:
            of_entropy = grad_entropy if ctx.entropy_gradient else None
            head_grad = _head_gradient(inputs, grad_logps, of_entropy, **ctx.settings).to(inputs[1].dtype)
        return grad, head_grad, *[None] * 6


def _head_gradient(
    saved: Sequence[Tensor],
    grad_logps: Tensor,
    grad_entropy: Tensor | None,
    words: int,
    temperature: float,
    tile: Tile,
    softcap: float | None,
) -> Tensor:
    """The gradient with respect to the head, in float32; zero in rows from `words` on.

    The derivative of a log-prob by a logit is (1 if it is the target's, else 0) - p, that of an entropy -p (log p + entropy).
    """
    hidden, weight, targets, logps, entropy, normaliser = saved
    total = torch.zeros_like(weight, dtype=torch.float32)
    buffers = total.new_empty(2, min(tile[0], len(hidden)), min(tile[1], words))
    for start in range(0, len(hidden), tile[0]):
        part = slice(start, start + tile[0])
        states, target, logp, up = hidden[part].to(weight.dtype), targets[part], logps[part], grad_logps[part]
        # Of the target 1 - p is computed without that difference, which would be rounded where p is near 1.
        of_target = up * -torch.expm1(logp)
        if grad_entropy is not None:
            of_target -= grad_entropy[part] * logp.exp() * (logp + entropy[part])
        for first in range(0, words, tile[1]):
            rows = weight[first : min(first + tile[1], words)]
            log_p, by_logit = buffers[:, : len(states), : len(rows)]
            slopes = _write_logits(states, rows, temperature, softcap, out=log_p)
            torch.exp(log_p.sub_(normaliser[part, None]), out=by_logit)
            if grad_entropy is None:
                by_logit *= -up[:, None]
            else:
                by_logit *= log_p.add_(entropy[part, None]).mul_(grad_entropy[part, None]).add_(up[:, None]).neg_()
            column = (target - first).clamp(0, len(rows) - 1)[:, None]
            in_tile = target[:, None] == column + first
            by_logit.scatter_(1, column, torch.where(in_tile, of_target[:, None], by_logit.gather(1, column)))
            if slopes is not None:
                by_logit *= slopes
            total[first : first + len(rows)] += (by_logit.div_(temperature).to(weight.dtype).T @ states).float()
    return total


def _write_logits(
    hidden: Tensor, rows: Tensor, temperature: float, softcap: float | None, out: Tensor
) -> Tensor | None:
    """Write the logits of a tile to `out`, in float32; return their slopes by the product with the head where they are capped."""
    _matmul(hidden, rows.T, out=out)
    slopes = None
    if softcap is not None:
        out.div_(softcap).tanh_()
        slopes = 1 - out.square()
        out *= softcap
    if temperature != 1:
        out /= temperature
    return slopes


def _matmul(a: Tensor, b: Tensor, out: Tensor) -> None:
    """Compute a @ b in the inputs' dtype, and write it to `out`, in float32."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def tiled_log_probs(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    entropy_gradient: bool = False,
    tile: Tile | None = None,
    softcap: float | None = None,
    words: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-prob of each target token, and entropy of the distribution that predicts it.

    Args:
        hidden: (M, H) last hidden states at the positions that predict the targets.
        head: (V, H) output embedding.
        targets: (M,) int64 token ids.
        temperature: divides the logits.
        entropy_gradient: whether the entropy has a gradient too, which costs one more matrix product.
        tile: size of the tiles; None for `tile_of`.
        softcap: logits are softcap * tanh(logit / softcap), before the temperature; None: unchanged.
        words: V', at least 2; the vocabulary is the first V' rows of the head; None for all.

    Returns:
        (M,) float32 log-probs, with gradient to `hidden`, and to `head` where it is trained; (M,) float32 entropies in nats.
    """
    # Under autocast the products would be cast again; they must use the head's dtype, in forward and backward.
    with torch.autocast(hidden.device.type, enabled=False):
        words = words or len(head)
        tile = tile or tile_of(words)
        return _TiledLogProbs.apply(hidden, head, words, targets, temperature, tile, entropy_gradient, softcap)
