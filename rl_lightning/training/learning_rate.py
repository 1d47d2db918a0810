"""Learning-rate schedules: constant, linear or cosine, after a linear warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from rl_lightning.types import UserError

Schedule = Literal["constant", "linear", "cosine"]


def learning_rate_share(schedule: Schedule, warmup_steps: int, max_steps: int) -> Callable[[int], float]:
    """The learning rate at each optimizer step, as a share of its peak.

    Args:
        schedule: after the warm-up: constant, or decay to zero at `max_steps`, linear or along a cosine.
        warmup_steps: optimizer steps over which the learning rate rises from zero.
        max_steps: optimizer steps of the run; below 1 means no limit.

    Returns:
        a function from an optimizer step to the share, in [0, 1].

    Raises:
        UserError: a schedule that decays, in a run without `max_steps`.
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
