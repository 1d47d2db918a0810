"""How a run climbs."""

from __future__ import annotations

from dataclasses import dataclass

from rl_lightning.types import require


@dataclass(frozen=True)
class Curriculum:
    """Keeps each task at the level that the learner solves sometimes. A group whose answers are all right or all wrong
    teaches nothing."""

    low: float = 0.3
    """Below this share of right answers a task goes down a level; in [0, high)."""

    high: float = 0.7
    """Above this share of right answers a task goes up a level; in (low, 1)."""

    window: int = 16
    """Groups at a task's level that the share is taken over, and that a new level waits for; at least 1."""

    start: int = 0
    """The level to begin at; at least 0, at most the last one."""

    rehearsal: float = 0.2
    """Share of a task's prompts that are drawn evenly from the levels below its own, lest they be forgotten; in [0, 1)."""

    follow_progress: bool = False
    """Whether tasks whose success moves get more of the prompts. Each task keeps at least half of the share that its weight
    gives it."""

    def check(self) -> None:
        """Refuse values out of range. Not at construction: of a section that may be null, jsonargparse would wrap the line.

        Raises:
            UserError: naming the first.
        """
        require("data.curriculum.high", self.high, 0 < self.high < 1, "above 0 and below 1")
        require("data.curriculum.low", self.low, 0 <= self.low < self.high, f"0 or more, and below high ({self.high})")
        require("data.curriculum.window", self.window, self.window >= 1, "at least 1")
        require("data.curriculum.start", self.start, self.start >= 0, "0 or more")
        require("data.curriculum.rehearsal", self.rehearsal, 0 <= self.rehearsal < 1, "0 or more, and below 1")
