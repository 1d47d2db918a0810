"""What rl_lightning and TRL have in common, here and in `gpu_benchmark`: objective, rate, and a reward that depends on nothing."""

from __future__ import annotations

from typing import Any

from rl_lightning.scoring import Reward
from rl_lightning.types import Problem, Score

LEARNING_RATE = 1e-6
"""So small that the completions of the last step are like those of the first."""

PEER: dict[str, Any] = {
    "temperature": 1.0,
    "beta": 0.0,
    "num_iterations": 1,
    "loss_type": "dapo",
    "epsilon_high": 0.28,
    "learning_rate": LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.0,
    "shuffle_dataset": False,
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
"""TRL's settings that no workload changes: rl_lightning's defaults by TRL's names, and nothing besides the work."""


def alternating(count: int) -> list[float]:
    """Rewards 0, 1, 0, 1, …: no group is without a difference, whatever was written."""
    return [float(number % 2) for number in range(count)]


class Alternating(Reward):
    """The same for rl_lightning, which asks for one reward at a time."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, problem: Problem, completion: str, score: Score) -> float:
        self.asked += 1
        return float(self.asked % 2 == 0)
