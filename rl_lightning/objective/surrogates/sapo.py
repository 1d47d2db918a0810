"""SAPO's surrogate: a soft gate instead of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rl_lightning.objective.loss_inputs import LossInputs
from rl_lightning.objective.surrogates.surrogate import Surrogate, SurrogateTerms
from rl_lightning.types import require


@dataclass
class SAPO(Surrogate):
    """4 / t x sigmoid(t x (ratio - 1)) x A (arXiv 2511.20347), with a separate temperature t for each sign of A."""

    positive: float = 1.0
    """Temperature t of the gate for tokens with positive advantage; above 0. A larger one makes the gate steeper."""

    negative: float = 1.05
    """Temperature t of the gate for tokens with negative advantage; above 0."""

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            require(f"objective.surrogate.{name}", getattr(self, name), getattr(self, name) > 0, "above 0")

    def __call__(self, inputs: LossInputs) -> SurrogateTerms:
        """The surrogate of each token; see `Surrogate`."""
        ratio = torch.exp(inputs.logps - inputs.old_logps)
        temperature = torch.where(inputs.advantages > 0, self.positive, self.negative).to(ratio.dtype)
        gate = torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature
        return SurrogateTerms.unclipped(gate * inputs.advantages)
