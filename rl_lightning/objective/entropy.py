"""Select the tokens of the highest entropy, at which the policy could plausibly have continued in another way."""

from __future__ import annotations

import math

from torch import Tensor

ENTROPY_TOLERANCE = 1e-3
"""Nats by which a token's entropy may be below the threshold: the first tokens of a group's completions have the same entropy
except for rounding, which must not decide between them."""


def high_entropy_mask(entropies: Tensor, among: Tensor, share: float) -> Tensor:
    """Mask of the tokens of the highest entropy ("Beyond the 80/20 rule", arXiv 2506.01939).

    One threshold holds for the whole step, so that it does not depend on how the step is packed into micro-batches.

    Args:
        entropies: (N, T) nats.
        among: (N, T) bool, the tokens to choose from: those that would be trained on.
        share: the share of these to keep, in (0, 1].

    Returns:
        (N, T) bool. All tokens whose entropy equals the threshold are included, and so are those whose entropy is NaN: the error
        behind them must show in the gradient.
    """
    values = entropies[among]
    if not len(values):
        return among
    threshold = values.kthvalue(len(values) - math.ceil(share * len(values) - 1e-9) + 1).values
    return among & ~(entropies < threshold - ENTROPY_TOLERANCE)
