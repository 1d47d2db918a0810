"""Numbers that are not finite: completions that end because of them, updates that are skipped, and when the run ends.

A completion whose logits are not finite ends there. It counts as wrong, and its whole group is left out of the update, because a
baseline or a deviation with it, or without it, would not be that of G completions. A step without any other group is a skipped
update, as is one whose gradient is not finite; three in a row end the run and save the batch.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from rl_lightning.distributed import Collective
from rl_lightning.types import Rollout, RolloutBatch, Score, UserError

log = logging.getLogger(__name__)

MAX_IN_A_ROW = 3
"""Consecutive updates that are skipped because numbers are not finite, after which the run ends."""

_FAILURE = "not_finite_logits"


def wrong_if_not_finite(scores: Sequence[Score], rollout: Rollout) -> tuple[Score, ...]:
    """The scores of N completions; one that ended because its logits were not finite has no answer, whatever it says."""
    none = {"exact": 0.0, "partial": 0.0, "well_formed": False, "answer": None, "failure": _FAILURE, "format": 0.0}
    ended = zip(scores, rollout.not_finite.tolist(), strict=True)
    return tuple(replace(score, **none) if not_finite else score for score, not_finite in ended)  # type: ignore[arg-type]


def warn_of_not_finite(step: int, rollouts: RolloutBatch, collective: Collective) -> None:
    """Log on rank 0 how many of a step's completions, and of which tasks, ended because their logits were not finite."""
    rollout, problems = rollouts.rollout, rollouts.prompts.problems
    rows = rollout.not_finite.nonzero().flatten().tolist()
    if not rows or collective.rank > 0:
        return
    tasks = Counter(problems[row // rollout.group_size].task for row in rows)
    named = ", ".join(f"{task} {count}" for task, count in sorted(tasks.items()))
    log.warning(
        f"step {step}: {len(rows)} of {len(rollout.texts)} completions ended because the model's logits were not finite numbers "
        f"({named}); their {int((~rollout.finite_groups).sum())} groups are left out of the update"
    )


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
    what = "the gradient was" if rollouts.kept.any() else "the logits of every group were"
    return UserError(
        f"{what} not a finite number in {MAX_IN_A_ROW} updates in a row; the last batch is in {path} (torch.load "
        "reads it); a lower model.learning_rate or another model.policy.dtype may help, and --ckpt_path last resumes from the "
        "last checkpoint"
    )
