"""Where the learner stands on each task's ladder."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer


class CurriculumLog(Callback):
    """With `data.curriculum`, log of each task that has a ladder (`curriculum/<task>/…`):

    - `level`: its level, as decided so far; prompts follow some steps later;
    - `success`: share of right answers over the groups at that level that will decide, from the first of them on.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        course = trainer.datamodule.course  # type: ignore[attr-defined]
        for task, (level, success) in course.figures().items() if course else ():
            pl_module.report({f"curriculum/{task}/level": float(level)})
            if success is not None:
                pl_module.report({f"curriculum/{task}/success": success})
