"""The curriculum's two decisions as pure functions: a task's next level, and the weights of tasks that make progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from rl_lightning.curriculum.config import Curriculum

GUARANTEED_SHARE = 0.5
"""Each task keeps this part of the share of prompts that its weight gives it, however little progress it makes."""


def next_level(level: int, top: int, successes: Sequence[float], curriculum: Curriculum) -> int:
    """Decide a task's level from its recent groups.

    Args:
        level: the level now, in [0, top].
        top: the last level.
        successes: each group's share of right answers, all at this level, oldest first.
        curriculum: the settings `low`, `high` and `window`.

    Returns:
        one level more if the mean of the last `window` groups is above `high`, one less if it is below `low`, else the same; also
        the same while there are fewer groups than `window`.
    """
    if len(successes) < curriculum.window:
        return level
    rate = fmean(successes[-curriculum.window :])
    if rate > curriculum.high:
        return min(level + 1, top)
    return max(level - 1, 0) if rate < curriculum.low else level


def progress_weights(given: Mapping[str, float], progress: Mapping[str, float]) -> dict[str, float]:
    """Shift the tasks' shares of the prompts towards those that make progress.

    Args:
        given: task to its weight in the config, > 0.
        progress: task to how much its success changed recently, in [0, 1]; 0 for tasks that are missing.

    Returns:
        task to its share of the prompts: GUARANTEED_SHARE by the given weights, the rest by weight times progress. The shares sum
        to 1. If no task makes progress, they are the given ones.
    """
    total = sum(given.values())
    moving = {task: weight * progress.get(task, 0.0) for task, weight in given.items()}
    if not (total_moving := sum(moving.values())):
        return {task: weight / total for task, weight in given.items()}
    return {
        task: GUARANTEED_SHARE * weight / total + (1 - GUARANTEED_SHARE) * moving[task] / total_moving
        for task, weight in given.items()
    }
