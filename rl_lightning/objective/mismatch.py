"""Where sampler and trainer give a token different probabilities: importance weights that make up for it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

SamplerCorrection = Literal["none", "truncated", "masked"]


def sampler_weights(old_logps: Tensor, sampling_logps: Tensor, correction: SamplerCorrection, cap: float) -> Tensor:
    """What each token counts for, since it was drawn by one distribution and is trained as if by another.

    Args:
        old_logps: (M,) the trainer's, at the time of the rollout.
        sampling_logps: (M,) the sampler's.
        correction: "truncated": w = exp(old - sampling), at most the cap (Yao et al., "Your efficient RL framework secretly
            brings you off-policy RL training", 2025); "masked": w within [1 / cap, cap], else 0 (IcePop, arXiv 2510.18855);
            "none": 1.
        cap: above 1.

    Returns:
        (M,) without gradient.
    """
    if correction == "none":
        return torch.ones_like(old_logps)
    weight = torch.exp(old_logps - sampling_logps).detach()
    if correction == "truncated":
        return weight.clamp(max=cap)
    return torch.where((weight <= cap) & (weight >= 1 / cap), weight, 0.0)
