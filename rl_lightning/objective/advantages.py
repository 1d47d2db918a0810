"""How much better a completion did than the others of its group."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

AdvantageScale = Literal["group", "batch", "none"]

_EPSILON = 1e-4
"""Added to the standard deviation, in units of reward, so that a nearly dead group is not blown up (as in TRL)."""


def group_advantages(rewards: Tensor, scale: AdvantageScale = "group") -> Tensor:
    """Centre rewards within each group, and optionally scale them.

    Args:
        rewards: (B, G) float, one row a prompt; G >= 2.
        scale: "group" divides by the row's standard deviation (GRPO, arXiv 2402.03300), "batch" by that of all rewards
            (as in REINFORCE++, arXiv 2501.03262), "none" leaves them (Dr. GRPO, arXiv 2503.20783).

    Returns:
        (B, G) float32; a row of equal rewards is exactly zero, so that its group may be skipped.
    """
    rewards = rewards.float()
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if scale == "group":
        centred = centred / (rewards.std(dim=1, keepdim=True) + _EPSILON)
    elif scale == "batch":
        centred = centred / (rewards.std() + _EPSILON)
    # The mean of equal floats may differ from them in the last bit, and a dead group must be dead exactly.
    dead = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    return torch.where(dead, torch.zeros_like(centred), centred)
