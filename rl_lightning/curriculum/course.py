"""A run's way through the levels: what happened decides what comes next, a fixed number of slots later."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from statistics import fmean
from typing import Any

from rl_lightning.curriculum.config import Curriculum
from rl_lightning.curriculum.movement import moved, progress_weights
from rl_lightning.curriculum.plan import Plan
from rl_lightning.curriculum.record import Success
from rl_lightning.types import Problem, UserError


class Course:
    """Levels that follow the learner.

    Args:
        curriculum: the settings.
        levels: task to the number of its levels; tasks without a ladder are left out.
        weights: task to its weight in the config, of all tasks.
    """

    def __init__(self, curriculum: Curriculum, levels: Mapping[str, int], weights: Mapping[str, float]) -> None:
        self._curriculum, self._given = curriculum, dict(weights)
        self._top = {task: number - 1 for task, number in levels.items()}
        self.levels = dict.fromkeys(levels, curriculum.start)
        """Task to its level, as decided so far; the plan has it some slots later."""
        self._standing = {task: Success() for task in weights}
        """Level and success in one, so that a task which climbs moves though it is as right as before."""
        self._groups = {task: deque[float](maxlen=curriculum.window) for task in levels}
        self.plan = Plan(self.levels, self._given, curriculum.rehearsal)

    def refuse_missing_levels(self) -> None:
        """Before training begins.

        Raises:
            UserError: a task has no level `start`.
        """
        for task, level in self.levels.items():
            if level > self._top[task]:
                raise UserError(
                    f"data.curriculum.start: {level} is not allowed; the levels of {task} are 0 to {self._top[task]}"
                )

    def learn(self, outcomes: Sequence[tuple[Problem, float]], cursor: int, lag: int) -> None:
        """A step has ended: move the levels, and plan from `cursor + lag` on.

        Only groups at a task's own level count: neither rehearsals nor what was drawn before its last move.

        Args:
            outcomes: each group's problem and its share of right answers.
            cursor: the stream's position after the step.
            lag: slots; more than may have been drawn ahead of the cursor.
        """
        for problem, success in outcomes:
            if problem.level == self.levels.get(problem.task):
                self._standing[problem.task].add((problem.level or 0) + success)
                if problem.level is not None:
                    self._groups[problem.task].append(success)
        for task, level in self.levels.items():
            after = moved(level, self._top[task], list(self._groups[task]), self._curriculum)
            if after != level:
                self.levels[task] = after
                self._groups[task].clear()  # a level is judged by its own groups
        weights = self._given
        if self._curriculum.follow_progress:
            progress = {task: min(standing.progress, 1.0) for task, standing in self._standing.items()}
            weights = progress_weights(self._given, progress)
        self.plan.turn(cursor + lag, self.levels, weights)
        self.plan.forget_before(cursor)

    def figures(self) -> dict[str, tuple[int, float | None]]:
        """Of each task with a ladder its level, and its success over the groups that will decide; None before the first."""
        return {
            task: (level, fmean(self._groups[task]) if self._groups[task] else None)
            for task, level in self.levels.items()
        }

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        groups = {task: list(found) for task, found in self._groups.items()}
        standing = {task: astuple(found) for task, found in self._standing.items()}
        return {"levels": dict(self.levels), "groups": groups, "standing": standing, "plan": self.plan.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        self.levels = dict(state["levels"])
        for task, found in state["groups"].items():
            self._groups[task] = deque(found, maxlen=self._curriculum.window)
        self._standing = {task: Success(*found) for task, found in state["standing"].items()}
        self.plan.restore(state["plan"])
