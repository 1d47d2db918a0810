"""Token log-probs straight from hidden states: at no time is more than one chunk of logits alive.

A 3B Qwen2.5 has 608 KB of float32 logits a token; a micro-batch of 8,000 tokens would need 4.9 GB for them and as much again
for their gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_TOKENS = 256
"""Tokens a chunk: 156 MB of float32 logits at Qwen's vocabulary of 151,936, and as much of probabilities."""


class _ChunkedLogProbs(torch.autograd.Function):
    """Logits in float32, logsumexp and gather by chunks; the head is frozen and gets no gradient.

    Nothing is recomputed in backward: the derivative of a token's log-prob by its hidden state, the target's embedding less the
    expected one, is a vector like the hidden state itself, and is at hand while the token's probabilities are.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, temperature: float, chunk: int, of_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        logps = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropy = torch.empty_like(logps)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        entropy_slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] and of_entropy else None
        # Two buffers serve all chunks: on a CPU to allocate this much anew costs more than to fill it.
        buffers = logps.new_empty(2, min(chunk, len(hidden)), len(head))
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits, probs = buffers[:, : len(hidden[part])]
            _product(hidden[part].to(head.dtype), head.T, out=logits)
            if temperature != 1:
                logits /= temperature
            largest = logits.amax(dim=1)
            torch.softmax(logits, dim=1, out=probs)
            log_total = -probs.amax(dim=1).log()  # of exp(logits - largest), without writing these down
            logps[part] = logits.gather(1, targets[part, None]).squeeze(1) - largest - log_total
            entropy[part] = log_total + largest - torch.bmm(probs[:, None], logits[:, :, None]).flatten()
            if entropy_slope is not None:  # by a logit it is -p (log p + entropy)
                logits += (entropy[part] - largest - log_total)[:, None]
                logits *= probs
                entropy_slope[part] = (logits.to(head.dtype) @ head) / -temperature
            if slope is not None:
                # Less 1 at the target before any rounding: a token of probability near 1 has a small slope, not a rounded one.
                probs.scatter_add_(1, targets[part, None], probs.new_full((len(probs), 1), -1.0))
                slope[part] = (probs.to(head.dtype) @ head) / -temperature
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


def chunked_log_probs(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    chunk: int = CHUNK_TOKENS,
    of_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Log-prob of each target token, and the entropy of the distribution that it came from.

    Args:
        hidden: (M, H) last hidden states at the positions that predict the targets.
        head: (V, H) frozen output embedding.
        targets: (M,) int64.
        temperature: divides the logits.
        chunk: tokens whose logits are alive at once.
        of_entropy: whether the entropy has a gradient too, which costs one more product.

    Returns:
        (M,) float32 log-probs, differentiable by `hidden`; (M,) float32 entropy in nats.
    """
    # Inside autocast the products would be cast once more; the dtype is the head's, here and in backward alike.
    with torch.autocast(hidden.device.type, enabled=False):
        return _ChunkedLogProbs.apply(hidden, head, targets, temperature, chunk, of_entropy)
