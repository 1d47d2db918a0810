"""PPO's and GRPO's surrogate: the clipped ratio of each token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rl_lightning.objective.loss_inputs import LossInputs
from rl_lightning.objective.surrogates.surrogate import Surrogate, SurrogateTerms
from rl_lightning.types import require


@dataclass
class Clip(Surrogate):
    """min(ratio x A, clip(ratio) x A) of each token (PPO, arXiv 1707.06347), with separate lower and upper ends ("clip-higher",
    DAPO, arXiv 2503.14476)."""

    epsilon: float = 0.2
    """Lower end of the clip: the ratio is clipped below at 1 - epsilon; in (0, 1)."""

    epsilon_high: float = 0.28
    """Upper end of the clip: the ratio is clipped above at 1 + epsilon_high; above 0."""

    delta: float | None = None
    """Upper limit of the ratio of tokens with negative advantage ("two-sided clip", arXiv 2505.07291); above 1 + epsilon_high;
    null for no limit."""

    def __post_init__(self) -> None:
        where = "objective.surrogate"
        require(f"{where}.epsilon", self.epsilon, 0 < self.epsilon < 1, "above 0 and below 1")
        require(f"{where}.epsilon_high", self.epsilon_high, self.epsilon_high > 0, "above 0")
        above = f"above 1 + epsilon_high, which is {1 + self.epsilon_high:g}, or null"
        require(f"{where}.delta", self.delta, self.delta is None or self.delta > 1 + self.epsilon_high, above)

    def __call__(self, inputs: LossInputs) -> SurrogateTerms:
        """The surrogate of each token; see `Surrogate`."""
        return self.of_ratio(torch.exp(inputs.logps - inputs.old_logps), inputs.advantages)

    def of_ratio(self, ratio: Tensor, advantages: Tensor) -> SurrogateTerms:
        """The clipped surrogate of given ratios, whether of tokens or of completions.

        Args:
            ratio: (M,) new probability divided by old probability.
            advantages: (M,) the advantage of each token's completion.
        """
        clipped = ratio.clamp(1 - self.epsilon, 1 + self.epsilon_high)
        limited = ratio if self.delta is None else ratio.clamp(max=self.delta)
        low = (ratio < clipped) & (advantages < 0)
        high = ((ratio > clipped) & (advantages > 0)) | ((ratio > limited) & (advantages < 0))
        return SurrogateTerms(torch.minimum(limited * advantages, clipped * advantages), low, high)
