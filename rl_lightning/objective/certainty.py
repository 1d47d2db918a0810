"""Which tokens are worth a gradient: those where the policy could have gone on otherwise."""

from __future__ import annotations

import torch
from torch import Tensor


def least_sure(entropies: Tensor, among: Tensor, share: float) -> Tensor:
    """The tokens of the highest entropy ("Beyond the 80/20 rule", arXiv 2506.01939).

    The threshold is one for the whole step, so that it does not depend on how the step is cut into micro-batches.

    Args:
        entropies: (N, T) nats.
        among: (N, T) bool, the tokens that would be trained on.
        share: of these, in (0, 1].

    Returns:
        (N, T) bool; tokens as unsure as the threshold are all in it.
    """
    if not among.any():
        return among
    threshold = torch.quantile(entropies[among], 1 - share, interpolation="higher")
    return among & (entropies >= threshold)
