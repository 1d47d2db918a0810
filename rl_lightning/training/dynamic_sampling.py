"""Dynamic sampling (DAPO, arXiv 2503.14476): how many extra prompts a step samples, and which groups it trains on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rl_lightning.rollout import Sampling


def extra_prompts_needed(sampling: Sampling, prompts: int, variance: Tensor) -> int:
    """How many extra prompts to sample next.

    Args:
        sampling: the share of groups with reward variance to reach, and the limit of extra prompts.
        prompts: number of prompts of the step.
        variance: (B,) bool, whether each group that was sampled so far has reward variance.

    Returns:
        the number that is expected to be enough, if the share of groups with variance stays the same; at most the prompts of a
        step, for which memory is planned; 0 where there are enough groups, or `max_resample` is reached.
    """
    left = sampling.max_resample * prompts - len(variance)
    if left <= 0:
        return 0
    found, needed = int(variance.sum()), math.ceil(sampling.min_variance_share * prompts - 1e-9)
    if found >= needed:
        return 0
    return min(math.ceil((needed - found) * len(variance) / max(found, 1)), left, prompts)


def groups_to_keep(variance: Tensor, count: int) -> Tensor:
    """Which groups a step trains on: those with reward variance first, then those without, each in the order of sampling.

    Args:
        variance: (B,) bool, whether each group has reward variance.
        count: number of groups to keep.

    Returns:
        (B,) bool, true for the groups to keep.
    """
    order = torch.argsort(variance.int(), descending=True, stable=True)
    return torch.zeros_like(variance).scatter(0, order[:count], True)
