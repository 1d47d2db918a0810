"""Estimate the KL divergence of the policy from the reference model, token by token.

The estimators are those of Schulman, "Approximating KL divergence", 2020.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]


def kl(logps: Tensor, ref_logps: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimate KL(policy || reference) at each sampled token.

    Args:
        logps: (M,) log-probs by the policy.
        ref_logps: (M,) log-probs by the reference model.
        estimator: with d = ref - policy: k1 = -d, unbiased, of any sign; k2 = d^2 / 2, whose gradient is that of the KL;
            k3 = exp(d) - d - 1, unbiased and never negative (GRPO's, arXiv 2402.03300).

    Returns:
        (M,) estimates in nats, with gradient.
    """
    difference = ref_logps - logps
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return difference.square() / 2
    return torch.exp(difference) - difference - 1
