"""The inputs of a loss: the completion tokens of a micro-batch as flat tensors, one value per token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LossInputs:
    """M completion tokens of a micro-batch. Completions are whole, so that a mean over one can be taken.

    Attributes:
        logps: (M,) log-probs by the policy, with gradient.
        old_logps: (M,) the same by the trainer's forward pass at the time of the rollout.
        advantages: (M,) the advantage of each token's completion.
        weights: (M,) token weights, from `token_weights`.
        rows: (M,) int64, the completion that each token belongs to; any numbers.
        sampling_logps: (M,) log-probs by the sampler; needed for the importance correction.
        ref_logps: (M,) log-probs by the reference model; needed where beta > 0.
        entropy: (M,) entropy in nats of the distribution that predicted each token, with gradient if objective.entropy_bonus is
            above 0.
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
        """(M,) the mean of (M,) values over each token's completion."""
        _, row = self.rows.unique(return_inverse=True)
        counts = torch.bincount(row)
        return (values.new_zeros(len(counts)).index_add(0, row, values) / counts)[row]
