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
    - `distinct_answers`: mean over prompts of the number of different answers in a group (none counts as one);
    - `useful_tokens`: share of the sampled tokens that were trained on.

    And `groups/sampled`, the number of prompts, with dynamic sampling perhaps more than the data module's; `time/wasted` and
    `time/wasted/<task>`, the seconds of sampling that went into tokens that were not trained on.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        record = outputs["record"]
        sampled, size = record.groups, record.groups.rollout.group_size
        groups = [sampled.scores[i : i + size] for i in range(0, len(sampled.scores), size)]
        tasks = [problem.task for problem in sampled.batch.problems]
        tokens = sampled.rollout.lengths.view(-1, size).float()
        useful = ((record.weights > 0) & ~record.trainer_logps.isnan()).sum(dim=1).view(-1, size).float()
        token_seconds = pl_module.metrics["time/sample"] / float(tokens.sum())

        def figures(chosen: list[int]) -> dict[str, float]:
            spent, taught = float(tokens[chosen].sum()), float(useful[chosen].sum())
            found = group_statistics(sampled.rewards[chosen], [groups[i] for i in chosen])
            return found | {"useful_tokens": taught / spent, "wasted": (spent - taught) * token_seconds}

        chosen = {"": list(range(len(groups)))}
        if len(set(tasks)) > 1:
            chosen |= {f"/{task}": [i for i, name in enumerate(tasks) if name == task] for task in sorted(set(tasks))}
        for of, those in chosen.items():
            found = figures(those)
            pl_module.report({f"time/wasted{of}": found.pop("wasted")})
            pl_module.report({f"groups{of}/{name}": value for name, value in found.items()})
        pl_module.report({"groups/sampled": float(len(groups))})


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
