"""CISPO's surrogate: the log-prob, weighted by the clipped ratio."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rl_lightning.objective.loss_inputs import LossInputs
from rl_lightning.objective.surrogates.surrogate import Surrogate, SurrogateTerms
from rl_lightning.types import require


@dataclass
class CISPO(Surrogate):
    """min(ratio, 1 + epsilon_high), without gradient, x A x logp (arXiv 2506.13585). Every token keeps a gradient."""

    epsilon_high: float = 0.28
    """Upper end of the clip: the ratio counts at most 1 + epsilon_high; above 0."""

    def __post_init__(self) -> None:
        require("objective.surrogate.epsilon_high", self.epsilon_high, self.epsilon_high > 0, "above 0")

    def __call__(self, inputs: LossInputs) -> SurrogateTerms:
        """The surrogate of each token; see `Surrogate`."""
        ratio = torch.exp(inputs.logps - inputs.old_logps).detach()
        weight = ratio.clamp(max=1 + self.epsilon_high)
        values = weight * inputs.advantages * inputs.logps
        return SurrogateTerms(values, torch.zeros_like(ratio, dtype=torch.bool), weight < ratio)
