"""The hook through which callbacks receive each training step; their order in the trainer's list does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, Trainer

from rl_lightning.types import StepRecord


class StepCallback(Callback):
    """A callback that receives training steps. Each of the three hooks is called on all such callbacks before the next hook is
    called on any of them, so their order in the trainer's list does not matter.

    Example:
        class LongestCompletion(StepCallback):
            def step_metrics(self, trainer, pl_module, record):
                return {"my_metrics/longest": float(record.rollouts.rollout.lengths.max())}
    """

    def step_metrics(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> Mapping[str, float]:
        """Metrics to add to those of the step; called at the end of `training_step`."""
        return {}

    def on_step(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        """Called right after `step_metrics`, when `pl_module.metrics` holds the metrics of all callbacks, and before Lightning's
        `on_train_batch_end` hooks, in which evaluations run and checkpoints are saved."""

    def on_step_end(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        """Called after Lightning's `on_train_batch_end` hooks of all callbacks, when an evaluation that was due has been made."""
