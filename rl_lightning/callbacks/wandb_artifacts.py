"""Log checkpoints as Weights & Biases artifacts where the logger's `log_model` asks for it, as Lightning does with its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger

from rl_lightning.checkpointing.checkpoints import best_checkpoint, checkpoint_step


def log_artifact(trainer: Trainer, checkpoint: Path, at_end: bool) -> None:
    """Log a checkpoint that was just written as an artifact of type `model`, whole, so that a run can be resumed from it too.

    `WandbLogger(log_model="all")` gets every checkpoint, `log_model=True` the last one, and without it none.

    Args:
        trainer: of the run.
        checkpoint: the directory; the artifact has the alias `step-N`, and `best` if it is that so far.
        at_end: whether it is the last of the run.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger) and (logger._log_model == "all" or (logger._log_model and at_end)):
            aliases = [f"step-{checkpoint_step(checkpoint)}"]
            if best_checkpoint(checkpoint.parent) == checkpoint:
                aliases.append("best")
            run: Any = logger.experiment
            run.log_artifact(str(checkpoint), name=f"model-{run.id}", type="model", aliases=[*aliases, "latest"])
