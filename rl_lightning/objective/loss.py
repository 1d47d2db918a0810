"""The clipped surrogate, weighted token by token, and the optional pull towards the base."""

from __future__ import annotations

import torch
from torch import Tensor

from rl_lightning.types import LossOutput


def policy_loss(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    weights: Tensor,
    epsilon: float,
    epsilon_high: float,
    ref_logps: Tensor | None = None,
    beta: float = 0.0,
) -> LossOutput:
    """Sum over tokens of weight x (beta x KL - min(ratio x advantage, clip(ratio) x advantage)), PPO's surrogate
    (arXiv 1707.06347) with GRPO's advantages (arXiv 2402.03300).

    All tensors are flat over the M tokens of one micro-batch.

    Args:
        logps: (M,) float32, the policy's log-probs, with gradient.
        old_logps: (M,) the log-probs at the time of the rollout, by the same forward pass.
        advantages: (M,) each token's completion's advantage.
        weights: (M,) from `token_weights`.
        epsilon: lower clipping range of the ratio.
        epsilon_high: upper clipping range ("clip higher", arXiv 2503.14476).
        ref_logps: (M,) the base model's log-probs; needed where beta > 0.
        beta: weight of the KL to the base by the k3 estimator, exp(d) - d - 1 with d = ref - policy, which is never negative.

    Returns:
        the loss, and sums that add up over micro-batches: `clipped_low` and `clipped_high` are counts of tokens,
        `kl` is the sum of the estimator over tokens.
    """
    ratio = torch.exp(logps - old_logps)
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon_high)
    per_token = -torch.minimum(ratio * advantages, clipped * advantages)
    metrics = {
        "clipped_low": ((ratio < 1 - epsilon) & (advantages < 0)).sum(),
        "clipped_high": ((ratio > 1 + epsilon_high) & (advantages > 0)).sum(),
    }
    if ref_logps is not None:
        difference = ref_logps - logps
        kl = torch.exp(difference) - difference - 1
        per_token = per_token + beta * kl
        metrics["kl"] = kl.detach().sum()
    return LossOutput((weights * per_token).sum(), metrics)
