"""Leave a picture of the learning curve, for those who look at nothing else."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from rl_lightning.report.learning_curve import draw


class LearningCurve(Callback):
    """At the end of the run, also of one that was stopped, draw `learning_curve.png` in the trainer's `default_root_dir`, from the
    files that are there. Put it after FixedEval, whose last evaluation it shows."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            root = Path(trainer.default_root_dir)
            draw(root, root / "learning_curve.png")
