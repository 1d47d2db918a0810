"""Print the memory plan and the end tokens before the first step, and the measured peak after it."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import torch
from lightning.pytorch import Trainer

from rl_lightning.memory import table
from rl_lightning.memory.arithmetic import CUDA_CONTEXT
from rl_lightning.policy.end_tokens import end_tokens_line
from rl_lightning.training import StepCallback
from rl_lightning.types import StepRecord

if sys.platform != "win32":
    import resource


class MemoryPlan(StepCallback):
    """Print at the start the memory plan and the tokens that end a completion; after the first step the predicted and the measured
    peak.

    Logs `memory/peak_gb` every step: on a GPU the most that the allocator has reserved so far, plus CUDA's context; on a CPU the
    peak resident memory of the process. GB are 10^9 bytes. Also `memory/token_budget` and `memory/max_rollout_rows`, the limits as
    they are: they are halved where memory runs out, and doubled again later.
    """

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._first = True
        _say(trainer, table(pl_module.plan))
        _say(trainer, end_tokens_line(pl_module.policy.model, pl_module.policy.tokenizer))

    def step_metrics(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> dict[str, float]:
        """See the class."""
        limits = (pl_module.limits.token_budget, pl_module.limits.rollout_rows)
        now = {f"memory/{limit.setting.rpartition('.')[2]}": float(limit.value) for limit in limits}
        peak = peak_bytes(set(pl_module.policy.layer_devices))
        if peak is None:
            return now
        if self._first:
            self._first = False
            predicted = pl_module.plan.peak / 1e9
            _say(trainer, f"Memory after the first step: {peak / 1e9:.2f} GB at most; predicted {predicted:.2f} GB")
        return {"memory/peak_gb": peak / 1e9, **now}


def peak_bytes(devices: Collection[torch.device]) -> int | None:
    """Return the peak of this process's memory on its fullest device, in bytes; None for the CPU on Windows: it is not measured.

    Args:
        devices: the CPU, or one or several GPUs. To the GPU allocator's peak the plan's estimate of the CUDA context is added: the
            rest of the GPU's used memory may be other processes'.
    """
    if all(device.type == "cuda" for device in devices):
        return max(map(torch.cuda.max_memory_reserved, devices)) + CUDA_CONTEXT
    if sys.platform == "win32":
        return None
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_per_unit


def _say(trainer: Trainer, text: str) -> None:
    bar: Any = trainer.progress_bar_callback
    if bar is not None:
        bar.print(text)
