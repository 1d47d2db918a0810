"""Do the groups have anything to teach? A group whose rewards are all equal has not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from rl_lightning.types import Score


class GroupVariance(Callback):
    """Log, over all prompts of the step and per task (`groups/…`, `groups/<task>/…`):

    - `diverse`: share of prompts whose completions earned different rewards;
    - `dead_right`, `dead_wrong`: share of prompts whose rewards are all equal, with every answer exact, or not;
    - `reward_std`: mean over prompts of the standard deviation of rewards;
    - `distinct_answers`: mean over prompts of the number of different answers in a group (none counts as one).
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        record = outputs["record"]
        size = record.rollout.group_size
        groups = [record.scores[i : i + size] for i in range(0, len(record.scores), size)]
        tasks = [problem.task for problem in record.batch.problems]
        metrics = {f"groups/{name}": value for name, value in group_statistics(record.rewards, groups).items()}
        for task in sorted(set(tasks)) if len(set(tasks)) > 1 else []:
            chosen = [i for i, name in enumerate(tasks) if name == task]
            statistics = group_statistics(record.rewards[chosen], [groups[i] for i in chosen])
            metrics |= {f"groups/{task}/{name}": value for name, value in statistics.items()}
        pl_module.metrics |= metrics


def group_statistics(rewards: Tensor, groups: Sequence[Sequence[Score]]) -> dict[str, float]:
    """The figures that `GroupVariance` logs.

    Args:
        rewards: (B, G) float.
        groups: B sequences of G scores.
    """
    dead = (rewards == rewards[:, :1]).all(dim=1)
    right = torch.tensor([all(score.exact == 1 for score in group) for group in groups], device=rewards.device)
    return {
        "diverse": float((~dead).float().mean()),
        "dead_right": float((dead & right).float().mean()),
        "dead_wrong": float((dead & ~right).float().mean()),
        "reward_std": float(rewards.std(dim=1).mean()),
        "distinct_answers": sum(len({score.answer for score in group}) for group in groups) / len(groups),
    }
