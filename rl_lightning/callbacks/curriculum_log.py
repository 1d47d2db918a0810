"""Log each task's difficulty level and its recent accuracy."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from rl_lightning.training import StepCallback
from rl_lightning.types import StepRecord


class CurriculumLog(StepCallback):
    """With `data.curriculum`, log for each task that has levels (`curriculum/<task>/…`):

    - `level`: its level, as decided so far; prompts follow some steps later;
    - `success`: share of right answers over the groups at that level that the next decision will be based on; missing before the
      first of them.
    """

    def step_metrics(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> dict[str, float]:
        """See the class."""
        scheduler = trainer.datamodule.scheduler  # type: ignore[attr-defined]
        metrics = {}
        for task, (level, success) in scheduler.metrics().items() if scheduler else ():
            metrics[f"curriculum/{task}/level"] = float(level)
            if success is not None:
                metrics[f"curriculum/{task}/success"] = success
        return metrics
