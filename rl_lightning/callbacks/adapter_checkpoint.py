"""Checkpoints that plain PEFT loads, and from which a run goes on."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from rl_lightning.types import UserError, require

STATE_FILE = "trainer.ckpt"
"""Lightning's own checkpoint inside a checkpoint directory: optimizer, clocks, random states, stream position."""

_NAME = re.compile(r"checkpoint-\d+")


class AdapterCheckpoint(Checkpoint):
    """Write `checkpoint-N/` every `save_steps` optimizer steps and at the end, into the trainer's `default_root_dir`.

    A directory holds the adapter as PEFT writes it and `trainer.ckpt`. It is written under a temporary name and renamed, so it
    is there whole or not at all.

    Args:
        save_steps: optimizer steps between checkpoints; at least 1.
        save_total_limit: keep this many of the newest; at least 1, or None for all.
    """

    def __init__(self, save_steps: int = 100, save_total_limit: int | None = 2) -> None:
        require("AdapterCheckpoint.save_steps", save_steps, save_steps >= 1, "at least 1")
        allowed = save_total_limit is None or save_total_limit >= 1
        require("AdapterCheckpoint.save_total_limit", save_total_limit, allowed, "at least 1, or null to keep all")
        self.save_steps, self.save_total_limit = save_steps, save_total_limit

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._step_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step // self.save_steps > self._step_before // self.save_steps:
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer, pl_module)

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        root = Path(trainer.default_root_dir)
        final = root / f"checkpoint-{trainer.global_step}"
        if final.exists():
            return
        temporary = root / f".{final.name}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)  # left by a run that was killed while it wrote
        temporary.mkdir(parents=True)
        pl_module.policy.save_adapter(temporary)  # type: ignore[union-attr, operator]
        trainer.save_checkpoint(temporary / STATE_FILE)
        _flush(temporary)
        temporary.rename(final)
        if self.save_total_limit is not None:
            for old in checkpoints(root)[: -self.save_total_limit]:
                shutil.rmtree(old)


def checkpoint_step(path: Path) -> int:
    """N of a directory named checkpoint-N."""
    return int(path.name.removeprefix("checkpoint-"))


def checkpoints(root: Path) -> list[Path]:
    """The whole checkpoint directories of a run, oldest step first."""
    found = (p for p in root.glob("checkpoint-*") if _NAME.fullmatch(p.name) and (p / STATE_FILE).is_file())
    return sorted(found, key=checkpoint_step)


def resolve_checkpoint(name: str, root: Path) -> Path:
    """The file that Lightning loads.

    Args:
        name: `last`, a checkpoint directory, or the file itself.
        root: the run directory, in which `last` is looked for.

    Raises:
        UserError: there is none, with what there is.
    """
    found = checkpoints(root)
    if name == "last":
        if not found:
            raise UserError(
                f"ckpt_path: no checkpoint in {root}; leave --ckpt_path out to start there, or name another"
            )
        return found[-1] / STATE_FILE
    path = Path(name).expanduser()
    file = path / STATE_FILE if path.is_dir() else path
    if not file.is_file():
        have = ", ".join(str(p) for p in found) or f"none in {root}"
        raise UserError(f"ckpt_path: {name!r} is not a checkpoint directory or `last`; there are: {have}")
    return file


def _flush(directory: Path) -> None:
    """Make sure that the files are on the disk before the directory gets its name."""
    for path in directory.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
