"""Which tokens are worth a gradient: those where the policy could have gone on otherwise."""

from __future__ import annotations

import math

from torch import Tensor

AS_UNSURE = 1e-3
"""Nats by which tokens may be surer than the threshold and still be in: the first tokens of a group are equally sure but for
rounding, and must not be parted by it."""


def least_sure(entropies: Tensor, among: Tensor, share: float) -> Tensor:
    """The tokens of the highest entropy ("Beyond the 80/20 rule", arXiv 2506.01939).

    The threshold is one for the whole step, so that it does not depend on how the step is cut into micro-batches.

    Args:
        entropies: (N, T) nats.
        among: (N, T) bool, the tokens that would be trained on.
        share: of these, in (0, 1].

    Returns:
        (N, T) bool; tokens as unsure as the threshold are all in it, and so are those whose entropy is not a number: what is
        wrong with them must show in the gradient.
    """
    values = entropies[among]
    if not len(values):
        return among
    threshold = values.kthvalue(len(values) - math.ceil(share * len(values) - 1e-9) + 1).values
    return among & ~(entropies < threshold - AS_UNSURE)
