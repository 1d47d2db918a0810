"""What rl_lightning and TRL have in common, here and in `gpu_benchmark`: objective, learning rate, and a fixed reward pattern."""

from __future__ import annotations

from typing import Any

from rl_lightning.scoring import Reward
from rl_lightning.types import Problem, Score

LEARNING_RATE = 1e-6
"""Small enough that the completions of the last step are like those of the first."""

TRL_SETTINGS: dict[str, Any] = {
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
"""TRL's settings that no workload changes: rl_lightning's defaults under TRL's names, and nothing besides the work."""


def alternating_rewards(count: int) -> list[float]:
    """Rewards 0, 1, 0, 1, …: every group has reward variance, whatever was written."""
    return [float(number % 2) for number in range(count)]


class AlternatingReward(Reward):
    """The same for rl_lightning, which calls a reward for one completion at a time."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, problem: Problem, completion: str, score: Score) -> float:
        self.calls += 1
        return float(self.calls % 2 == 0)
