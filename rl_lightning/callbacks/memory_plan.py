"""Does it fit? What the plan says before the first step, and what the first step has needed."""

from __future__ import annotations

import sys
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from rl_lightning.policy.memory import CUDA_CONTEXT
from rl_lightning.policy.plan import table

if sys.platform != "win32":
    import resource


class MemoryPlan(Callback):
    """Print the memory plan at the start, and predicted beside measured after the first step.

    Logs `memory/peak_gb` every step: on a GPU what the allocator has held at most, with CUDA's own; on a CPU what the process
    has. GB are 10^9 bytes.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._first = True
        _say(trainer, table(pl_module.plan))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        peak = peak_bytes(pl_module.device)
        if peak is None:
            return
        pl_module.report({"memory/peak_gb": peak / 1e9})
        if self._first:
            self._first = False
            _say(
                trainer,
                f"Memory after the first step: {peak / 1e9:.2f} GB at most; predicted {pl_module.plan.peak / 1e9:.2f} GB",
            )


def peak_bytes(device: torch.device) -> int | None:
    """Bytes that this process has had at most on its device; None on Windows' CPU, which is not asked.

    Args:
        device: a GPU, with what CUDA itself takes by the plan's reckoning, for what else is gone may be others'; or the CPU.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) + CUDA_CONTEXT
    if sys.platform == "win32":
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _say(trainer: Trainer, text: str) -> None:
    bar: Any = trainer.progress_bar_callback
    if bar is not None:
        bar.print(text)
