"""Token log-probs straight from hidden states: at no time is more than one chunk of logits alive.

A 3B Qwen2.5 has 608 KB of float32 logits a token; a micro-batch of 8,000 tokens would need 4.9 GB for them and as much again
for their gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_TOKENS = 512
"""Tokens a chunk: 311 MB of float32 logits at Qwen's vocabulary of 151,936."""


class _ChunkedLogProbs(torch.autograd.Function):
    """Logits in float32, logsumexp and gather by chunks; recomputed in backward; the head is frozen and gets no gradient."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, chunk: int
    ) -> tuple[Tensor, Tensor]:
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropy = torch.empty_like(logps)
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            log_probs = _log_probs(hidden[part], head, temperature)
            logps[part] = log_probs.gather(1, targets[part, None]).squeeze(1)
            entropy[part] = -(log_probs.exp() * log_probs).sum(dim=1)
        ctx.save_for_backward(hidden, head, targets)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, _grad_entropy: Tensor) -> tuple[Tensor, None, None, None, None]:
        hidden, head, targets = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        for start in range(0, len(hidden), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            # d logp / d logits = onehot - softmax
            grad_logits = _log_probs(hidden[part], head, ctx.temperature).exp_().neg_()
            grad_logits.scatter_add_(1, targets[part, None], grad_logits.new_ones(len(grad_logits), 1))
            grad_logits.mul_(grad_logps[part, None] / ctx.temperature)
            grad_hidden[part] = grad_logits.to(head.dtype) @ head
        return grad_hidden, None, None, None, None


def _log_probs(hidden: Tensor, head: Tensor, temperature: float) -> Tensor:
    return ((hidden.to(head.dtype) @ head.T).float() / temperature).log_softmax(dim=-1)


def chunked_log_probs(
    hidden: Tensor, head: Tensor, targets: Tensor, temperature: float = 1.0, chunk: int = CHUNK_TOKENS
) -> tuple[Tensor, Tensor]:
    """Log-prob of each target token, and the entropy of the distribution that it came from.

    Args:
        hidden: (M, H) last hidden states at the positions that predict the targets.
        head: (V, H) frozen output embedding.
        targets: (M,) int64.
        temperature: divides the logits.
        chunk: tokens whose logits are alive at once.

    Returns:
        (M,) float32 log-probs, differentiable by `hidden`; (M,) float32 entropy in nats, without gradient.
    """
    # Inside autocast the products would be cast once more; the dtype is the head's, here and in backward alike.
    with torch.autocast(hidden.device.type, enabled=False):
        return _ChunkedLogProbs.apply(hidden, head, targets, temperature, chunk)
