"""The objective's settings."""

from __future__ import annotations

from dataclasses import dataclass

from rl_lightning.objective.advantages import AdvantageScale
from rl_lightning.objective.weights import LossType
from rl_lightning.types import require


@dataclass
class Objective:
    """What is optimised."""

    loss_type: LossType = "dapo"
    """How tokens are weighed: grpo (mean of completions' means), dr_grpo (by the length limit), dapo and bnpo (mean of tokens)."""

    scale_advantages: AdvantageScale = "group"
    """Divide advantages by the standard deviation of rewards in the group, in the batch, or not at all (none)."""

    epsilon: float = 0.2
    """The ratio is clipped below at 1 - epsilon; in (0, 1)."""

    epsilon_high: float = 0.28
    """The ratio is clipped above at 1 + epsilon_high; > 0."""

    beta: float = 0.0
    """Weight of the KL to the base; 0 needs no reference pass."""

    num_iterations: int = 1
    """Optimizer steps a rollout; at least 1."""

    mask_truncated_completions: bool = False
    """Leave completions that were cut off at max_new_tokens out of the loss."""

    def __post_init__(self) -> None:
        require("objective.epsilon", self.epsilon, 0 < self.epsilon < 1, "above 0 and below 1")
        require("objective.epsilon_high", self.epsilon_high, self.epsilon_high > 0, "above 0")
        require("objective.beta", self.beta, self.beta >= 0, "0 or more")
        require("objective.num_iterations", self.num_iterations, self.num_iterations >= 1, "at least 1")
