"""The learning rate over the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from rl_lightning.types import UserError

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate_share(schedule: Schedule, warmup_steps: int, max_steps: int) -> Callable[[int], float]:
    """The share of the peak rate at each optimizer step.

    Args:
        schedule: after the warm-up: constant, or down to zero at `max_steps` along a line or a cosine.
        warmup_steps: steps over which the rate rises.
        max_steps: length of the run; below 1 means without end.

    Raises:
        UserError: a schedule that must know the end of a run that has none.
    """
    if schedule != "constant" and max_steps < 1:
        raise UserError(f"model.lr_schedule: {schedule} needs trainer.max_steps; set it, or use constant")

    def share(step: int) -> float:
        warmup = min(1.0, (step + 1) / (warmup_steps + 1))
        if schedule == "constant":
            return warmup
        done = min(1.0, step / max_steps)
        return warmup * (1 - done if schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)

    return share
