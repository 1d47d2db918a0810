"""Record of the accuracy in training: decayed means and a count for each task and level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RECENT, LONG = 16, 64
"""Groups that the short and the long mean look back on: after that many groups, a new one has the weight 1 / RECENT or 1 / LONG."""


@dataclass
class Success:
    """Accuracy of the groups of one task at one level, or of anything else that groups have.

    Attributes:
        groups: number of groups sampled.
        recent: decayed mean of the groups' shares of right answers, over about the last RECENT groups.
        long: the same over about the last LONG groups.
    """

    groups: int = 0
    recent: float = 0.0
    long: float = 0.0

    def add(self, success: float) -> None:
        """Add a group's share of right answers. Each mean is the plain mean until there are more groups than it looks back on."""
        self.groups += 1
        self.recent += (success - self.recent) / min(self.groups, RECENT)
        self.long += (success - self.long) / min(self.groups, LONG)

    @property
    def progress(self) -> float:
        """Absolute difference of the short and the long mean; 0 until there are more than RECENT groups."""
        return abs(self.recent - self.long)


class SuccessRecord:
    """`Success` by task and level; the level of a task without levels is None."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, int | None], Success] = {}

    def __getitem__(self, key: tuple[str, int | None]) -> Success:
        """Return the `Success` of a task and level; all zero if nothing was sampled yet."""
        return self._of.get(key, Success())

    def add(self, task: str, level: int | None, success: float) -> None:
        """Add a group that was sampled.

        Args:
            task: its problem's task.
            level: its problem's level; None without levels.
            success: its share of right answers, in [0, 1].
        """
        self._of.setdefault((task, level), Success()).add(success)

    def groups_by_level(self) -> dict[str, dict[int, int]]:
        """Return the number of groups sampled of each task with levels: task to level to number, the easiest first."""
        found: dict[str, dict[int, int]] = {}
        for task, level, groups in sorted((t, v, s.groups) for (t, v), s in self._of.items() if v is not None):
            found.setdefault(task, {})[level] = groups
        return found

    def state(self) -> list[list[Any]]:
        """Return what a checkpoint holds: task, level, groups, recent and long of each."""
        return [[task, level, s.groups, s.recent, s.long] for (task, level), s in self._of.items()]

    def restore(self, state: Sequence[Sequence[Any]]) -> None:
        """Restore what `state` returned."""
        self._of = {(task, level): Success(*rest) for task, level, *rest in state}
