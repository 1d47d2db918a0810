"""What the run remembers of its success: of each task and level a decayed mean and a count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LATELY, LONG = 16, 64
"""Groups that the short and the long mean look back on: in the long run each group weighs one part in so many."""


@dataclass
class Success:
    """Of one task at one level, or of anything else that groups have.

    Attributes:
        groups: how many were sampled.
        lately: decayed mean of the groups' shares of right answers, over about the last LATELY groups.
        long: the same over about the last LONG groups.
    """

    groups: int = 0
    lately: float = 0.0
    long: float = 0.0

    def add(self, success: float) -> None:
        """One group more; the plain mean until there are more groups than a mean looks back on."""
        self.groups += 1
        self.lately += (success - self.lately) / min(self.groups, LATELY)
        self.long += (success - self.long) / min(self.groups, LONG)

    @property
    def progress(self) -> float:
        """How far it has moved lately, up or down; 0 until there are more than LATELY groups."""
        return abs(self.lately - self.long)


class SuccessRecord:
    """Success by task and level; None is the level of a task without a ladder."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, int | None], Success] = {}

    def __getitem__(self, key: tuple[str, int | None]) -> Success:
        """Of a task and level; all zero where nothing was sampled yet."""
        return self._of.get(key, Success())

    def add(self, task: str, level: int | None, success: float) -> None:
        """A group was sampled.

        Args:
            task: its problem's.
            level: its problem's.
            success: the share of its answers that are right, in [0, 1].
        """
        self._of.setdefault((task, level), Success()).add(success)

    def state(self) -> list[list[Any]]:
        """For a checkpoint: task, level, groups, lately and long of each."""
        return [[task, level, s.groups, s.lately, s.long] for (task, level), s in self._of.items()]

    def restore(self, state: Sequence[Sequence[Any]]) -> None:
        """Put back what `state` gave."""
        self._of = {(task, level): Success(*rest) for task, level, *rest in state}
