"""The settings that bound memory during a run: if it runs out, what can be spared is freed, and then they are halved.

Each phase has a limit of its own: the update, the rollout, the evaluation. What a long completion or another program took may be
free later, so a limit that was halved in training is doubled again after `RISE_AFTER` steps in which memory sufficed. If that was
too much, it is halved again, and waits twice as long. The limit of evaluations does not rise, because they are compared with each
other. All this is counted in steps and saved with a checkpoint, so that a resumed run does the same.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from rl_lightning.types import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")

RISE_AFTER = 50
"""Training steps in which memory sufficed, after which a limit is doubled again."""

_TOKENS = "a sampled token may be another one where rounding decides"


@dataclass
class Limit:
    """A setting that bounds memory.

    Attributes:
        setting: its name in a config.
        most: its value as planned; at least 1.
        effect: how another value changes results.
        rises: whether it is doubled again later.
        first: frees memory that can be spared, before the value is halved; returns what that means from here on, or None where
            there was nothing to free. The rollout engine sets it.
        halvings: how often it is halved now.
        steps: training steps since it was last changed.
        wait: of these before it is doubled.
        doubled: whether it was last doubled, and not halved.
    """

    setting: str
    most: int
    effect: str
    rises: bool = True
    first: Callable[[], str | None] | None = None
    halvings: int = 0
    steps: int = 0
    wait: int = RISE_AFTER
    doubled: bool = False

    @property
    def value(self) -> int:
        """Its current value; at least 1."""
        return self.most >> self.halvings

    def set(self, value: int) -> None:
        """Plan with another value."""
        self.most, self.halvings = value, 0

    def halve(self) -> str:
        """Halve the value, which must be above 1; returns what that means."""
        self.wait *= 2 if self.doubled else 1
        self.halvings, self.steps, self.doubled = self.halvings + 1, 0, False
        until = f"for the next {self.wait} steps" if self.rises else "from here on"
        return f"{self.setting} is {self.value} {until}; {self.effect}"

    def end_step(self) -> None:
        """Count a training step; double the value where it is time."""
        if self.halvings == 0 or not self.rises:
            return
        self.steps += 1
        if self.steps == self.wait:
            self.halvings, self.steps, self.doubled = self.halvings - 1, 0, True
            log.info(f"memory sufficed for {self.wait} steps: {self.setting} is {self.value} again; {self.effect}")

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {name: getattr(self, name) for name in ("most", "halvings", "steps", "wait", "doubled")}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned, unless another value is planned now."""
        if state["most"] == self.most:
            vars(self).update(state)


@dataclass
class MemoryLimits:
    """The memory limits of a run. The rollout engine and the update share one object.

    Attributes:
        token_budget: tokens of a micro-batch in the update.
        rollout_rows: sequences that decode at once in a rollout.
        eval_rows: sequences that decode at once in an evaluation.
    """

    token_budget: Limit
    rollout_rows: Limit
    eval_rows: Limit

    @classmethod
    def of(cls, token_budget: int, rollout_rows: int, eval_rows: int | None = None) -> MemoryLimits:
        """Limits with these values, named as in configs; without `eval_rows` evaluations have those of rollouts."""
        rows = rollout_rows if eval_rows is None else eval_rows
        return cls(
            Limit("model.token_budget", token_budget, "results change by rounding only"),
            Limit("model.sampling.max_rollout_rows", rollout_rows, _TOKENS),
            Limit("fixed_eval.rows", rows, _TOKENS, rises=False),
        )

    def end_step(self) -> None:
        """End a training step."""
        self.token_budget.end_step()
        self.rollout_rows.end_step()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {name: limit.state() for name, limit in vars(self).items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned, of limits that are planned as they were."""
        for name, limit in vars(self).items():
            limit.restore(state[name])


def halve_on_oom(limit: Limit, attempt: Callable[[], T]) -> T:
    """Call `attempt`; if the device runs out of memory, free what can be spared, or else halve the limit, and call it again.

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
            consequence = limit.halve()
        gc.collect()
        torch.cuda.empty_cache()
        log.warning(f"out of memory: {consequence}")
