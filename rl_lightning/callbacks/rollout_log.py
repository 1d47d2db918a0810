"""Keep every sampled completion: what the model really wrote is the best instrument there is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rl_lightning.module import StepRecord
from rl_lightning.rollout_files import RolloutFiles
from rl_lightning.types import require


class RolloutLog(Callback):
    """Write every completion, with its score and what sampler and trainer thought of it, to `rollouts/*.parquet` in the
    trainer's `default_root_dir`. A step is on the disk before the next one begins.

    Args:
        steps_per_file: steps a file; more of them are fewer files, and more to write at the end of a step. At least 1.

    Example:
        pd.read_parquet("outputs/quickstart/rollouts").groupby("step").exact.mean()
    """

    def __init__(self, steps_per_file: int = 20) -> None:
        require("RolloutLog.steps_per_file", steps_per_file, steps_per_file >= 1, "at least 1")
        self.steps_per_file = steps_per_file

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._files = RolloutFiles(Path(trainer.default_root_dir) / "rollouts", self.steps_per_file)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            self._files.append(trainer.global_step, rollout_rows(outputs["record"]))


def rollout_rows(record: StepRecord) -> list[dict[str, Any]]:
    """A row a completion, as `docs/rollouts.md` describes them, but for the step."""
    rollout, problems = record.groups.rollout, record.groups.batch.problems
    sampled = _row_means(rollout.sampling_logps, rollout.mask)
    entropies = _row_means(record.entropies, rollout.mask)
    gaps = _row_means((record.trainer_logps - rollout.sampling_logps).abs(), rollout.mask)
    tokens, finished = rollout.lengths.tolist(), rollout.finished.tolist()
    rewards, advantages = record.groups.rewards.flatten().tolist(), record.advantages.flatten().tolist()
    rows = []
    for n, (text, score) in enumerate(zip(rollout.texts, record.groups.scores, strict=True)):
        group = n // rollout.group_size
        expected, log_prob = problems[group].entry.get("answer"), sampled[n]
        assert log_prob is not None  # a completion has at least its end
        rows.append(
            {
                "task": problems[group].task,
                "index": problems[group].index,
                "level": problems[group].level,
                "group": group,
                "prompt": problems[group].question,
                "completion": text,
                "answer": score.answer,
                "expected": None if expected is None else str(expected),
                "exact": score.exact,
                "partial": score.partial,
                "format": score.well_formed,
                "failure": score.failure,
                "reward": rewards[n],
                "advantage": advantages[n],
                "tokens": tokens[n],
                "mean_logprob": log_prob,
                # Minus the log-prob of what was drawn is an unbiased estimate of the entropy, and all that a row has that
                # was never forwarded.
                "entropy": -log_prob if entropies[n] is None else entropies[n],
                "finish": "end" if finished[n] else "length",
                "gap": gaps[n],
            }
        )
    return rows


def _row_means(values: Tensor, mask: Tensor) -> list[float | None]:
    """The mean over each row's tokens, None where they are NaN."""
    means = values.where(mask, 0).sum(dim=1) / mask.sum(dim=1)
    return [None if math.isnan(mean) else mean for mean in means.tolist()]
