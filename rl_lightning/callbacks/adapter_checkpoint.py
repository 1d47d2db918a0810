"""Write checkpoints that plain PEFT or transformers loads and that a run can be resumed from, each with a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from safetensors import SafetensorError

from rl_lightning.callbacks.checkpoint_card import write_checkpoint_card
from rl_lightning.callbacks.fixed_eval import FixedEval
from rl_lightning.callbacks.wandb_artifacts import log_artifact
from rl_lightning.checkpointing.checkpoints import (
    STATE_FILE,
    best_checkpoint,
    damage,
    intact_checkpoints,
    remove_checkpoint,
    write_checkpoint,
)
from rl_lightning.types import UserError, first_line, require


class AdapterCheckpoint(Checkpoint):
    """Write `checkpoint-N/` every `save_steps` optimizer steps and at the end, into the trainer's `default_root_dir`.

    Args:
        save_steps: optimizer steps between checkpoints; at least 1.
        save_total_limit: number of checkpoints to keep, the newest; at least 1, or None for all.
        keep_best: keep also the one with the best accuracy in the fixed evaluation, of equal ones the earliest. Needs a
            `FixedEval` whose `fixed_eval_steps` divides `save_steps`, so that every checkpoint is evaluated.

    Raises:
        UserError: a checkpoint cannot be written, for instance because the disk is full; earlier ones are left as they were.
    """

    def __init__(self, save_steps: int = 100, save_total_limit: int | None = 2, keep_best: bool = False) -> None:
        require("AdapterCheckpoint.save_steps", save_steps, save_steps >= 1, "at least 1")
        allowed = save_total_limit is None or save_total_limit >= 1
        require("AdapterCheckpoint.save_total_limit", save_total_limit, allowed, "at least 1, or null to keep all")
        self.save_steps, self.save_total_limit, self.keep_best = save_steps, save_total_limit, keep_best
        self._due = self._between = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not self.keep_best or stage != "fit":
            return
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        steps = next((each.fixed_eval_steps for each in callbacks if isinstance(each, FixedEval)), None)
        require("AdapterCheckpoint.keep_best", True, steps is not None, "false where there is no FixedEval")
        allowed = steps is not None and self.save_steps % steps == 0
        range_ = f"a multiple of fixed_eval_steps ({steps}), for keep_best needs an evaluation of each checkpoint"
        require("AdapterCheckpoint.save_steps", self.save_steps, allowed, range_)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Not at the end of the step before: Lightning hands that step's metrics to the loggers only afterwards, and a run that
        # is killed in between would be resumed without them.
        if self._due:
            self._save(trainer, pl_module, at_end=False)
        self._due, self._step_before, self._between = False, trainer.global_step, False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._due = trainer.global_step // self.save_steps > self._step_before // self.save_steps
        self._between = True

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        # All steps are done, and the last evaluation or its picture failed or was stopped: the training must not be lost.
        # With several ranks the others may wait in the evaluation, and a checkpoint needs all.
        alone = pl_module.collective.world_size == 1
        if self._between and trainer.global_step == trainer.max_steps and alone:
            self._save(trainer, pl_module, at_end=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, pl_module, at_end=True)

    def _save(self, trainer: Trainer, pl_module: Any, at_end: bool) -> None:
        root, ranks = Path(trainer.default_root_dir), pl_module.collective
        final = root / f"checkpoint-{trainer.global_step}"
        if ranks.broadcast(lambda: final.exists() and damage(final) is None):
            return
        if ranks.rank > 0:  # Lightning has all ranks call this; only rank 0 writes
            trainer.save_checkpoint(final / STATE_FILE, weights_only=False)
            return
        if final.exists():
            remove_checkpoint(final)  # damaged: `--ckpt_path last` skipped it, and the run has come back to this step

        def write(directory: Path) -> None:
            pl_module.policy.save(directory)
            trainer.save_checkpoint(directory / STATE_FILE, weights_only=False)
            write_checkpoint_card(trainer, pl_module, directory)

        try:
            write_checkpoint(final, write)
        except (
            OSError,
            RuntimeError,
            SafetensorError,
        ) as error:  # if the disk is full, torch raises a plain RuntimeError
            intact = intact_checkpoints(root)
            kept = (
                f"{intact[-1]} is intact: resume from it by --ckpt_path last"
                if intact
                else "there is no checkpoint yet"
            )
            raise UserError(f"{final} cannot be written: {first_line(error)}; {kept}") from error
        if self.save_total_limit is not None:
            self._remove_older(root, final)
        log_artifact(trainer, final, at_end)

    def _remove_older(self, root: Path, final: Path) -> None:
        kept = {final, best_checkpoint(root) if self.keep_best else None}
        # Damaged ones do not count, or a run that was resumed from an older one would delete that.
        for old in intact_checkpoints(root)[: -self.save_total_limit]:  # type: ignore[operator]
            if old not in kept:
                remove_checkpoint(old)
