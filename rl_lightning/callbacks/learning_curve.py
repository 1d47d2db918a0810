"""Draw the learning curve at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from rl_lightning.callbacks.fixed_eval import final_evaluation
from rl_lightning.report.learning_curve import draw


class LearningCurve(Callback):
    """At the end of a run, even one that was interrupted, draw `learning_curve.png` in the trainer's `default_root_dir` from the
    files there."""

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        final_evaluation(trainer, pl_module)  # evaluates now, unless that was done already
        if pl_module.collective.rank == 0:
            root = Path(trainer.default_root_dir)
            draw(root, root / "learning_curve.png")
