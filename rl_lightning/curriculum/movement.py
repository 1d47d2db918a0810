"""The two decisions of a curriculum, as functions of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from rl_lightning.curriculum.config import Curriculum

GIVEN_SHARE = 0.5
"""Of its given share of the prompts each task keeps this much, however little it moves."""


def moved(level: int, top: int, successes: Sequence[float], curriculum: Curriculum) -> int:
    """The level after some groups.

    Args:
        level: in [0, top].
        top: the last level.
        successes: each group's share of right answers, all at this level, oldest first.
        curriculum: the band and the window.

    Returns:
        one more where the last `window` groups are above the band, one less where they are below it, else the same; the same
        also while there are fewer groups than that.
    """
    if len(successes) < curriculum.window:
        return level
    rate = fmean(successes[-curriculum.window :])
    if rate > curriculum.high:
        return min(level + 1, top)
    return max(level - 1, 0) if rate < curriculum.low else level


def progress_weights(given: Mapping[str, float], progress: Mapping[str, float]) -> dict[str, float]:
    """Weights that follow learning progress.

    Args:
        given: task to its weight in the config, > 0.
        progress: task to how far its success has moved lately, in [0, 1]; those that are missing have not moved.

    Returns:
        task to its share of the prompts: GIVEN_SHARE by the given weights, the rest by weight times progress. The shares sum
        to 1. Where nothing moves they are the given ones.
    """
    whole = sum(given.values())
    moving = {task: weight * progress.get(task, 0.0) for task, weight in given.items()}
    if not (movement := sum(moving.values())):
        return {task: weight / whole for task, weight in given.items()}
    return {
        task: GIVEN_SHARE * weight / whole + (1 - GIVEN_SHARE) * moving[task] / movement
        for task, weight in given.items()
    }
