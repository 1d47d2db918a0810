"""The settings that bound memory during a run: if it runs out, what can be spared is freed, and then they are halved."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch

from rl_lightning.types import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class Limit:
    """A setting that bounds memory.

    Attributes:
        setting: its name in a config.
        value: its current value; at least 1.
        first: frees memory that can be spared, before the value is halved; returns what that means from here on, or None where
            there was nothing to free. The rollout engine sets it.
    """

    setting: str
    value: int
    first: Callable[[], str | None] | None = None


@dataclass
class MemoryLimits:
    """The memory limits of a run. The rollout engine and the update share one object.

    Attributes:
        token_budget: tokens of a micro-batch in the update.
        rollout_rows: sequences that decode at once.
    """

    token_budget: Limit
    rollout_rows: Limit

    @classmethod
    def of(cls, token_budget: int, rollout_rows: int) -> MemoryLimits:
        """Limits with these values, named as in configs."""
        return cls(Limit("model.token_budget", token_budget), Limit("model.sampling.max_rollout_rows", rollout_rows))


def halve_on_oom(limit: Limit, attempt: Callable[[], T]) -> T:
    """Call `attempt`; if the device runs out of memory, free what can be spared, or else halve the limit, both for the rest of the
    run, and call it again.

    Args:
        limit: the limit that bounds the memory of `attempt`, which reads it.
        attempt: can be repeated, because it changes nothing before it succeeds. It must not contain a collective operation,
            because other ranks may not repeat it.

    Returns:
        the result of `attempt`.

    Raises:
        UserError: out of memory with a limit of 1, and nothing to spare.
    """
    while True:
        with suppress(torch.OutOfMemoryError):
            return attempt()
        # From here on the failed attempt's tensors are released.
        consequence = limit.first() if limit.first is not None else None
        if consequence is None:
            if limit.value == 1:
                raise UserError(
                    f"out of memory even with {limit.setting}=1; lower model.sampling.max_new_tokens, or use a smaller model"
                )
            limit.value //= 2
            consequence = f"{limit.setting} is {limit.value} from here on; results change by rounding only"
        gc.collect()
        torch.cuda.empty_cache()
        log.warning(f"out of memory: {consequence}")
