"""Settings of the curriculum."""

from __future__ import annotations

from dataclasses import dataclass

from rl_lightning.types import require


@dataclass(frozen=True)
class Curriculum:
    """Keep each task at the level that the policy solves sometimes: groups whose answers are all right or all wrong have no reward
    variance, and so no gradient."""

    low: float = 0.3
    """A task goes down a level if its share of right answers is below this; in [0, high)."""

    high: float = 0.7
    """A task goes up a level if its share of right answers is above this; in (low, 1)."""

    window: int = 16
    """Number of groups at the task's level over which this share is computed. After a change of level the next decision waits for
    this many new groups; at least 1."""

    start: int = 0
    """The level to start at; at least 0, at most the last one."""

    rehearsal: float = 0.2
    """Share of a task's prompts drawn uniformly from the levels below its own, so that they are not forgotten; in [0, 1)."""

    follow_progress: bool = False
    """Whether tasks whose success changes get more of the prompts. Each task keeps at least half of the share that its weight gives
    it."""

    def check(self) -> None:
        """Refuse values out of range.

        Not in `__post_init__`: jsonargparse would wrap the message, because the section may be null.

        Raises:
            UserError: it names the first such value.
        """
        require("data.curriculum.high", self.high, 0 < self.high < 1, "above 0 and below 1")
        require("data.curriculum.low", self.low, 0 <= self.low < self.high, f"0 or more, and below high ({self.high})")
        require("data.curriculum.window", self.window, self.window >= 1, "at least 1")
        require("data.curriculum.start", self.start, self.start >= 0, "0 or more")
        require("data.curriculum.rehearsal", self.rehearsal, 0 <= self.rehearsal < 1, "0 or more, and below 1")
