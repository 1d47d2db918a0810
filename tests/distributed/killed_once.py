"""A callback that kills a rank in the middle of a run, once."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lightning.pytorch import Callback


class KilledOnce(Callback):
    """Kill rank 1 after a step, unless the file says that this has been done."""

    def __init__(self, step: int, file: str) -> None:
        self.step, self.file = step, Path(file)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.global_rank == 1 and trainer.global_step == self.step and not self.file.exists():
            self.file.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
