"""Gradients that are not finite: the update is skipped, and three in a row end the run and save the batch."""

from __future__ import annotations

from pathlib import Path

import torch

from rl_lightning.types import RolloutBatch, UserError

MAX_IN_A_ROW = 3
"""Consecutive updates with a gradient that is not finite, after which the run ends."""


def save_failed_batch(path: Path, rollouts: RolloutBatch) -> UserError:
    """Save the batch that ended the run, and return the error to raise.

    Args:
        path: the file to write; `torch.load` reads it.
        rollouts: the rollouts of the step.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rollout = rollouts.rollout
    batch = {
        "questions": [p.question for p in rollouts.prompts.problems],
        "completions": list(rollout.texts),
        "prompt_ids": rollout.prompt_ids.cpu(),
        "completion_ids": rollout.completion_ids.cpu(),
        "mask": rollout.mask.cpu(),
        "sampling_logps": rollout.sampling_logps.cpu(),
        "rewards": rollouts.rewards.cpu(),
    }
    torch.save(batch, path)
    return UserError(
        f"the gradient was not a finite number in {MAX_IN_A_ROW} updates in a row; the last batch is in {path} (torch.load "
        "reads it); a lower model.learning_rate or another model.policy.dtype may help, and --ckpt_path last resumes from the "
        "last checkpoint"
    )
