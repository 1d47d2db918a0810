"""Compute advantages: rewards minus a baseline, normalised by a standard deviation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

AdvantageScale = Literal["group", "batch", "none"]
Baseline = Literal["group", "leave_one_out", "batch"]
RewardAggregation = Literal["sum_then_normalize", "normalize_then_sum"]

_EPSILON = 1e-4
"""Added to the standard deviation, in units of reward, so that a group with very little variance is not scaled up (as in TRL)."""


def group_advantages(rewards: Tensor, scale: AdvantageScale = "group", baseline: Baseline = "group") -> Tensor:
    """Subtract a baseline from the rewards, and optionally normalise the differences.

    Args:
        rewards: (B, G) float, one row per prompt; G >= 2.
        scale: "group" divides by the row's standard deviation (GRPO, arXiv 2402.03300), "batch" by that of all rewards
            (Lite PPO, arXiv 2508.08221; with the batch as baseline REINFORCE++, arXiv 2501.03262), "none" does not divide
            (Dr. GRPO, arXiv 2503.20783).
        baseline: what is subtracted from a reward: "group" the mean of its row; "leave_one_out" the mean of the other rewards of
            its row (RLOO, arXiv 2402.14740); "batch" the mean of all rewards (REINFORCE++).

    Returns:
        (B, G) float32; exactly zero in a row of equal rewards, so that it can be skipped (baseline "batch": where all rewards of
        the batch are equal).
    """
    rewards = rewards.float()
    mean = rewards.mean() if baseline == "batch" else rewards.mean(dim=1, keepdim=True)
    advantages = rewards - mean
    if baseline == "leave_one_out":
        advantages = advantages * (rewards.shape[1] / (rewards.shape[1] - 1))
    if scale == "group":
        advantages = advantages / (rewards.std(dim=1, keepdim=True) + _EPSILON)
    elif scale == "batch":
        advantages = advantages / (rewards.std() + _EPSILON)
    # The mean of equal floats can differ from them in the last bit; without reward variance the advantages must be exactly zero.
    no_variance = (
        (rewards == rewards[:1, :1]).all()
        if baseline == "batch"
        else (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    )
    return torch.where(no_variance, torch.zeros_like(advantages), advantages)


def decoupled_advantages(components: Tensor, weights: Tensor) -> Tensor:
    """GDPO's advantages (arXiv 2601.05242): normalise each reward component within its group, then sum them by weight.

    The sums are divided by their standard deviation over the batch, so that more components do not make larger steps.

    Args:
        components: (B, G, R) float, the R components of each reward.
        weights: (R,) float, the weight of each component.

    Returns:
        (B, G) float32; zero in groups in which no component with a weight has any variance.
    """
    normalized = torch.stack([group_advantages(component) for component in components.unbind(dim=-1)], dim=-1)
    summed = normalized @ weights.to(normalized)
    return summed / (summed.std() + _EPSILON)  # the mean is already zero, because each group's is


def overlong_penalty(lengths: Tensor, limit: int, buffer: int) -> Tensor:
    """DAPO's soft overlong punishment (arXiv 2503.14476, equation 13), to be added to rewards before advantages are computed.

    Args:
        lengths: (N,) tokens of each completion.
        limit: the length limit of a completion, in tokens.
        buffer: tokens before the limit over which the penalty grows; 0 for no penalty.

    Returns:
        (N,) float32, 0 up to limit - buffer tokens and -1 at the limit.
    """
    return ((limit - buffer - lengths.float()) / max(buffer, 1)).clamp(min=-1, max=0) if buffer else lengths.float() * 0
