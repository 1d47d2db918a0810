"""Log how many groups have reward variance; those without it have zero advantages, and so no gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from rl_lightning.training import StepCallback
from rl_lightning.types import Score, StepRecord


class GroupVariance(StepCallback):
    """Log, over all prompts of the step and per task (`groups/…`, `groups/<task>/…`):

    - `with_variance`: share of prompts whose completions earned different rewards;
    - `zero_variance_right`, `zero_variance_wrong`: share of prompts whose rewards are all equal, with all answers exact, or not;
    - `reward_std`: mean over prompts of the standard deviation of rewards;
    - `distinct_answers`: mean over prompts of the number of different answers in a group (no answer counts as one);
    - `useful_tokens`: share of the sampled tokens that were trained on.

    In the supervised steps of `model.sft_steps`, `sft/samples`, the number of completions that were trained on.

    Also `groups/sampled`, the number of prompts (with dynamic sampling it may be more than the data module's prompts_per_step), and
    `groups/kept`, the number of those that the update's mean is over; all other metrics are of everything that was sampled.
    `time/wasted` and `time/wasted/<task>`, the seconds of sampling spent on tokens that were not trained on.
    """

    def step_metrics(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> dict[str, float]:
        """See the class."""
        rollouts, size = record.rollouts, record.rollouts.rollout.group_size
        groups = [rollouts.scores[i : i + size] for i in range(0, len(rollouts.scores), size)]
        tasks = [problem.task for problem in rollouts.prompts.problems]
        tokens = rollouts.rollout.lengths.view(-1, size).float()
        useful = ((record.weights > 0) & ~record.trainer_logprobs.logps.isnan()).sum(dim=1).view(-1, size).float()
        token_seconds = record.seconds["sample"] / float(tokens.sum())

        chosen = {"": list(range(len(groups)))}
        if len(set(tasks)) > 1:
            chosen |= {f"/{task}": [i for i, name in enumerate(tasks) if name == task] for task in sorted(set(tasks))}
        metrics = {"groups/sampled": float(len(groups)), "groups/kept": float(rollouts.kept.sum())}
        for of, those in chosen.items():
            spent, trained = float(tokens[those].sum()), float(useful[those].sum())
            found = group_statistics(rollouts.rewards[those], [groups[i] for i in those])
            found["useful_tokens"] = trained / spent
            metrics |= {f"groups{of}/{name}": value for name, value in found.items()}
            metrics[f"time/wasted{of}"] = (spent - trained) * token_seconds
        if record.supervised:
            metrics["sft/samples"] = float(record.advantages.sum())
        return metrics


def group_statistics(rewards: Tensor, groups: Sequence[Sequence[Score]]) -> dict[str, float]:
    """Compute what `GroupVariance` logs of some groups, except `useful_tokens`.

    Args:
        rewards: (B, G) float.
        groups: B sequences of G scores.

    Returns:
        metric name to value, without the prefix `groups/`.
    """
    equal = (rewards == rewards[:, :1]).all(dim=1)
    right = torch.tensor([all(score.exact == 1 for score in group) for group in groups], device=rewards.device)
    return {
        "with_variance": float((~equal).float().mean()),
        "zero_variance_right": float((equal & right).float().mean()),
        "zero_variance_wrong": float((equal & ~right).float().mean()),
        "reward_std": float(rewards.std(dim=1).mean()),
        "distinct_answers": sum(len({score.answer for score in group}) for group in groups) / len(groups),
    }
