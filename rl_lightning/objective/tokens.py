"""What a loss is made of: completion tokens, flat, each with all that is known of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """M completion tokens of a micro-batch; whole completions, so that means over one can be taken.

    Attributes:
        logps: (M,) the policy's log-probs, with gradient.
        old_logps: (M,) the same by the same forward pass at the time of the rollout.
        advantages: (M,) each token's completion's advantage.
        weights: (M,) from `token_weights`.
        rows: (M,) int64, which completion a token belongs to; any numbers.
        sampling_logps: (M,) the sampler's own log-probs; needed where the objective corrects for them.
        ref_logps: (M,) the base model's; needed where beta > 0.
        entropy: (M,) of the distribution that each was drawn from, with gradient; needed where there is an entropy bonus.
    """

    logps: Tensor
    old_logps: Tensor
    advantages: Tensor
    weights: Tensor
    rows: Tensor
    sampling_logps: Tensor | None = None
    ref_logps: Tensor | None = None
    entropy: Tensor | None = None

    def row_means(self, values: Tensor) -> Tensor:
        """(M,) each token's completion's mean of (M,) values."""
        _, row = self.rows.unique(return_inverse=True)
        counts = torch.bincount(row)
        return (values.new_zeros(len(counts)).index_add(0, row, values) / counts)[row]
