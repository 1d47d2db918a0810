"""How much better a completion did than others."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

AdvantageScale = Literal["group", "batch", "none"]
Baseline = Literal["group", "leave_one_out", "batch"]
RewardAggregation = Literal["sum_then_normalize", "normalize_then_sum"]

_EPSILON = 1e-4
"""Added to the standard deviation, in units of reward, so that a nearly dead group is not blown up (as in TRL)."""


def group_advantages(rewards: Tensor, scale: AdvantageScale = "group", baseline: Baseline = "group") -> Tensor:
    """Compare rewards, and optionally scale the differences.

    Args:
        rewards: (B, G) float, one row a prompt; G >= 2.
        scale: "group" divides by the row's standard deviation (GRPO, arXiv 2402.03300), "batch" by that of all rewards
            (Lite PPO, arXiv 2508.08221; with the batch as baseline REINFORCE++, arXiv 2501.03262), "none" leaves them (Dr.
            GRPO, arXiv 2503.20783).
        baseline: what a reward is compared with: "group" its row's mean; "leave_one_out" the mean of the row's others (RLOO,
            arXiv 2402.14740); "batch" the mean of all (REINFORCE++).

    Returns:
        (B, G) float32; exactly zero where all rewards that are compared are the same, so that they may be skipped.
    """
    rewards = rewards.float()
    compared = rewards.mean() if baseline == "batch" else rewards.mean(dim=1, keepdim=True)
    differences = rewards - compared
    if baseline == "leave_one_out":
        differences = differences * (rewards.shape[1] / (rewards.shape[1] - 1))
    if scale == "group":
        differences = differences / (rewards.std(dim=1, keepdim=True) + _EPSILON)
    elif scale == "batch":
        differences = differences / (rewards.std() + _EPSILON)
    # The mean of equal floats may differ from them in the last bit, and a dead group must be dead exactly.
    same = (
        (rewards == rewards[:1, :1]).all()
        if baseline == "batch"
        else (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    )
    return torch.where(same, torch.zeros_like(differences), differences)


def decoupled_advantages(parts: Tensor, weights: Tensor) -> Tensor:
    """GDPO's (arXiv 2601.05242): each part of the reward is compared and scaled within its group, then they are weighed and
    summed, then all are divided by their deviation over the batch, so that more parts are not larger steps.

    Args:
        parts: (B, G, R) float, the R parts of each reward.
        weights: (R,) float, what each part counts.

    Returns:
        (B, G) float32; zero in groups in which every part that counts is the same throughout.
    """
    each = torch.stack([group_advantages(part) for part in parts.unbind(dim=-1)], dim=-1)
    summed = each @ weights.to(each)
    return summed / (summed.std() + _EPSILON)  # their mean is zero already: each group's is


def overlong_penalty(lengths: Tensor, limit: int, buffer: int) -> Tensor:
    """DAPO's soft punishment of length (arXiv 2503.14476, equation 13): to be added to rewards before they are compared.

    Args:
        lengths: (N,) tokens of each completion.
        limit: the most that they may have.
        buffer: tokens before the limit in which the penalty grows; 0: there is none.

    Returns:
        (N,) float32, 0 up to limit - buffer tokens and -1 at the limit.
    """
    return ((limit - buffer - lengths.float()) / max(buffer, 1)).clamp(min=-1, max=0) if buffer else lengths.float() * 0
