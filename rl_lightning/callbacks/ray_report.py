"""Report metrics to Ray Train; needs the extra `ray`."""

from __future__ import annotations

from typing import Any

import ray.train
from lightning.pytorch import Callback, Trainer


class RayReport(Callback):
    """Report metrics to Ray Train every `log_every_n_steps` steps, on every rank, because Ray waits for all.

    Ray's own RayTrainReportCallback reports at the end of an epoch, and the only epoch of a run has no end. Checkpoints stay in the
    run directory; Ray does not copy them.
    """

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (batch_idx + 1) % every == 0:
            ray.train.report({"step": trainer.global_step, **pl_module.metrics})
