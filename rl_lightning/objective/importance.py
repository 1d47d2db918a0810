"""Importance weights that correct for the difference between the sampler's and the trainer's probabilities."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

ImportanceCorrection = Literal["none", "truncated", "masked"]


def importance_weights(
    old_logps: Tensor, sampling_logps: Tensor, correction: ImportanceCorrection, cap: float
) -> Tensor:
    """The importance weight of each token: it was sampled from the sampler's distribution and is trained on as the trainer's.

    Args:
        old_logps: (M,) log-probs by the trainer, at the time of the rollout.
        sampling_logps: (M,) log-probs by the sampler.
        correction: "truncated": w = exp(old - sampling), at most `cap` (Yao et al., "Your efficient RL framework secretly
            brings you off-policy RL training", 2025); "masked": w within [1 / cap, cap], else 0 (IcePop, arXiv 2510.18855);
            "none": 1.
        cap: the largest weight, above 1.

    Returns:
        (M,) weights, without gradient.
    """
    if correction == "none":
        return torch.ones_like(old_logps)
    weight = torch.exp(old_logps - sampling_logps).detach()
    if correction == "truncated":
        return weight.clamp(max=cap)
    return torch.where((weight <= cap) & (weight >= 1 / cap), weight, 0.0)
