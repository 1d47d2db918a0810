"""Write every sampled completion, with its score, log-probs and entropy, to Parquet files in the run directory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from rl_lightning.loggers.rollout_files import RolloutFiles
from rl_lightning.training import StepCallback
from rl_lightning.types import StepRecord, require


class RolloutLog(StepCallback):
    """Write every completion with its score, log-probs and entropy to `rollouts/*.parquet` in the trainer's `default_root_dir`.

    A step is on the disk before the next one begins.

    Args:
        steps_per_file: optimizer steps per file, at least 1. More of them mean fewer files, and more to write after each rollout.

    Example:
        pd.read_parquet("outputs/quickstart/rollouts").groupby("step").exact.mean()
    """

    def __init__(self, steps_per_file: int = 20) -> None:
        require("RolloutLog.steps_per_file", steps_per_file, steps_per_file >= 1, "at least 1")
        self.steps_per_file = steps_per_file

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._files = RolloutFiles(Path(trainer.default_root_dir) / "rollouts", self.steps_per_file)

    def on_step(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        """Add the step's rows."""
        if pl_module.collective.rank == 0:
            self._files.append(record.step, rollout_rows(record))


def rollout_rows(record: StepRecord) -> list[dict[str, Any]]:
    """Make one row per completion, as `docs/rollouts.md` describes them, without the step."""
    rollout, problems = record.rollouts.rollout, record.rollouts.prompts.problems
    sampled = _row_means(rollout.sampling_logps, rollout.mask)
    entropies = _row_means(record.trainer_logprobs.entropies, rollout.mask)
    mismatches = _row_means((record.trainer_logprobs.logps - rollout.sampling_logps).abs(), rollout.mask)
    tokens, finished, truncated = rollout.lengths.tolist(), rollout.finished.tolist(), rollout.truncated.tolist()
    rewards, advantages = record.rollouts.rewards.flatten().tolist(), record.advantages.flatten().tolist()
    kept, rows = record.rollouts.kept.tolist(), []
    for n, (text, score) in enumerate(zip(rollout.texts, record.rollouts.scores, strict=True)):
        group = n // rollout.group_size
        log_prob = sampled[n]  # None where the last token has none
        rows.append(
            {
                "task": problems[group].task,
                "index": problems[group].index,
                "level": problems[group].level,
                "group": group,
                "prompt": problems[group].question,
                "completion": text,
                "answer": score.answer,
                "expected": problems[group].expected,
                "exact": score.exact,
                "partial": score.partial,
                "format": score.well_formed,
                "failure": score.failure,
                "reward": rewards[n],
                "advantage": advantages[n],
                "kept": kept[group],
                "tokens": tokens[n],
                "mean_logprob": log_prob,
                # The negative log-prob of the sampled tokens is an unbiased estimate of the entropy. Rows that the trainer
                # never forwarded have nothing else.
                "entropy": entropies[n]
                if log_prob is None or not (record.supervised or entropies[n] is None)
                else -log_prob,
                "finish": "end" if finished[n] else "length" if truncated[n] else "not_finite",
                "logprob_mismatch": None if record.supervised else mismatches[n],
            }
        )
    return rows


def _row_means(values: Tensor, mask: Tensor) -> list[float | None]:
    """Return the mean over each row's tokens; None for rows with NaN."""
    means = values.where(mask, 0).sum(dim=1) / mask.sum(dim=1)
    return [None if math.isnan(mean) else mean for mean in means.tolist()]
