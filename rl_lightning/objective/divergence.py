"""How far the policy is from the base, token by token (Schulman, "Approximating KL divergence", 2020)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]


def kl(logps: Tensor, ref_logps: Tensor, estimator: KLEstimator) -> Tensor:
    """An estimate of KL(policy || base) from the sampled tokens.

    Args:
        logps: (M,) the policy's.
        ref_logps: (M,) the base's.
        estimator: with d = ref - policy: k1 = -d, unbiased, of any sign; k2 = d^2 / 2, whose gradient is the true one;
            k3 = exp(d) - d - 1, unbiased and never negative (GRPO's, arXiv 2402.03300).
    """
    difference = ref_logps - logps
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return difference.square() / 2
    return torch.exp(difference) - difference - 1
