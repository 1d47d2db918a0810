"""Curriculum scheduler: decide each task's level by its recent accuracy, to take effect a fixed number of slots later."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from statistics import fmean
from typing import Any

from rl_lightning.curriculum.config import Curriculum
from rl_lightning.curriculum.record import Success
from rl_lightning.curriculum.schedule import LevelSchedule
from rl_lightning.curriculum.step_rule import next_level, progress_weights
from rl_lightning.types import Problem, UserError


class CurriculumScheduler:
    """Levels and weights of the tasks, updated after each step.

    Args:
        curriculum: the settings.
        levels: task to the number of its levels; tasks without levels are left out.
        weights: each task to its weight in the config.
    """

    def __init__(self, curriculum: Curriculum, levels: Mapping[str, int], weights: Mapping[str, float]) -> None:
        self._curriculum, self._given = curriculum, dict(weights)
        self._top = {task: number - 1 for task, number in levels.items()}
        self.levels = dict.fromkeys(levels, curriculum.start)
        """Task to its level, as decided so far; in the schedule it holds from some slots later on."""
        self._standing = {task: Success() for task in weights}
        """Level plus success, so that a task which goes up a level with the same success has made progress."""
        self._groups = {task: deque[float](maxlen=curriculum.window) for task in levels}
        self.schedule = LevelSchedule(self.levels, self._given, curriculum.rehearsal)

    def refuse_missing_levels(self) -> None:
        """Check the levels; called before training begins.

        Raises:
            UserError: a task does not have the level `data.curriculum.start`.
        """
        for task, level in self.levels.items():
            if level > self._top[task]:
                raise UserError(
                    f"data.curriculum.start: {level} is not allowed; the levels of {task} are 0 to {self._top[task]}"
                )

    def update(self, accuracies: Sequence[tuple[Problem, float]], cursor: int, lag: int) -> None:
        """Decide levels and weights after a step, to hold from slot `cursor + lag` on.

        Only groups at a task's own level count: neither rehearsal, nor prompts that were drawn before its last change of level.

        Args:
            accuracies: each group's problem and its share of right answers.
            cursor: the stream's position after the step.
            lag: slots; more than may have been drawn ahead of the cursor.
        """
        for problem, success in accuracies:
            if problem.level == self.levels.get(problem.task):
                self._standing[problem.task].add((problem.level or 0) + success)
                if problem.level is not None:
                    self._groups[problem.task].append(success)
        for task, level in self.levels.items():
            after = next_level(level, self._top[task], list(self._groups[task]), self._curriculum)
            if after != level:
                self.levels[task] = after
                self._groups[task].clear()  # a level is decided on by its own groups
        weights = self._given
        if self._curriculum.follow_progress:
            progress = {task: min(standing.progress, 1.0) for task, standing in self._standing.items()}
            weights = progress_weights(self._given, progress)
        self.schedule.change(cursor + lag, self.levels, weights)
        self.schedule.forget_before(cursor)

    def metrics(self) -> dict[str, tuple[int, float | None]]:
        """Return the level of each task with levels, and its success over the groups that will decide; None before the first."""
        return {
            task: (level, fmean(self._groups[task]) if self._groups[task] else None)
            for task, level in self.levels.items()
        }

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        groups = {task: list(found) for task, found in self._groups.items()}
        standing = {task: astuple(found) for task, found in self._standing.items()}
        return {"levels": dict(self.levels), "groups": groups, "standing": standing, "schedule": self.schedule.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.levels = dict(state["levels"])
        for task, found in state["groups"].items():
            self._groups[task] = deque(found, maxlen=self._curriculum.window)
        self._standing = {task: Success(*found) for task, found in state["standing"].items()}
        self.schedule.restore(state["schedule"])
