"""A task's ladder: its levels of difficulty, the easiest first, and which of them can be used at all.

A level is a config. The user gives the levels, or they are the attribute levels of reasoning-gym's curriculum of the task: level
L has every attribute at its L-th value, or at its last one. An attribute that is a range gets the L-th segment alone, for what
lies below comes by rehearsal. Some of these levels are refused by their own task, fail, or take seconds a problem; so every
level is tried before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from reasoning_gym.factory import CURRICULA

from rl_lightning.isolation import LOST, GuardedPool
from rl_lightning.tasks.generator import Task, Unmade
from rl_lightning.types import Problem

Config = dict[str, Any]

MOST_SECONDS = 10.0
"""That making a level and drawing its first problems may take: training asks for thousands."""

REFUSED = "refused by the task"

TRIED = 8
"""Problems drawn of a level to see whether it can be used; more than half of them must be made, differ, and be short enough."""


@dataclass(frozen=True)
class Rung:
    """One level that was tried.

    Attributes:
        number: its place in the levels as they were given.
        config: whole.
        problem: one of it; None where it cannot be used.
        wrong: why it cannot be used, or None.
    """

    number: int
    config: Config
    problem: Problem | None = None
    wrong: str | None = None


def candidates(task: Task, levels: Sequence[Config] = ()) -> list[Config]:
    """The configs of a task's levels, whether they can be used or not.

    Args:
        task: the task with what its config fixes for all levels.
        levels: the user's own, laid over that config; none for those of reasoning-gym's curriculum, over which the config's
            keys win.

    Returns:
        the easiest first; none where there is neither.
    """
    if levels:
        return [{**task.config, **level} for level in levels]
    return [{**level, **task.config} for level in curriculum_levels(task.name)]


def curriculum_levels(name: str) -> list[Config]:
    """What reasoning-gym's curriculum of the task sets at each level; empty where there is none."""
    if name not in CURRICULA:
        return []
    attributes = CURRICULA[name]().attributes.values()
    number = max((len(attribute.levels) for attribute in attributes), default=0)
    return [
        {key: value for attribute in attributes for key, value in _values(attribute, level)} for level in range(number)
    ]


def _values(attribute: Any, level: int) -> list[tuple[str, Any]]:
    """The config keys that an attribute sets at a level."""
    last = len(attribute.levels) - 1
    value = attribute.levels[min(level, last)]
    if hasattr(attribute, "field_name"):
        return [(attribute.field_name, value)]
    ends = list(value) if isinstance(value, (list, tuple)) else [value]
    if attribute.ensure_interval and len(ends) == 1:  # a range of values, which must not be a single one
        high = min(level + 1, last)
        ends = [attribute.levels[max(high - 1, 0)], attribute.levels[high]]
    return [(attribute.lower_field_name, min(ends)), (attribute.upper_field_name, max(ends))]


class LevelTrial:
    """Draws a level's first problems; lives in a guarded process.

    Args:
        tasks: by name, each with any config that it takes.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self._tasks = dict(tasks)

    def draw(self, name: str, config: Config) -> list[Problem] | str:
        """TRIED problems, or in words why there are fewer than half as many."""
        try:
            task = self._tasks[name].configured(config)
        except Exception as error:  # whatever a constructor may raise, it is the level that is wrong
            return f"{REFUSED}: {error.__cause__ or error}"
        made, failure = [], ""
        for number in range(TRIED):
            try:
                made.append(task.problem(item_seed=number, index=number))
            except Unmade as error:
                failure = error.detail
        return made if len(made) > TRIED // 2 else f"its generator fails: {failure}"


def try_ladders(
    tasks: Mapping[str, Task],
    levels: Mapping[str, Sequence[Config]],
    seconds: float,
    workers: int = 1,
    fits: Callable[[str], bool] = lambda question: True,
) -> dict[str, list[Rung]]:
    """Every level of every task, with what is wrong with it.

    Args:
        tasks: by name, by their own configs.
        levels: task to its levels, as `candidates` gives them.
        seconds: time limit of making a level and drawing its first problems.
        workers: processes that levels are tried in; at least 1.
        fits: whether a question is short enough.
    """
    pool = GuardedPool(LevelTrial(tasks), workers)
    try:
        begun = {
            name: [
                None if number and config == found[number - 1] else pool.call("draw", name, config, seconds=seconds)
                for number, config in enumerate(found)
            ]
            for name, found in levels.items()
        }
        return {
            name: [
                _rung(number, levels[name][number], drawn, seconds, fits) for number, drawn in enumerate(begun[name])
            ]
            for name in levels
        }
    finally:
        pool.close()


def _rung(
    number: int,
    config: Config,
    drawn: Future[list[Problem] | str] | None,
    seconds: float,
    fits: Callable[[str], bool],
) -> Rung:
    if drawn is None:
        return Rung(number, config, wrong="the same as the level before")
    try:
        found = drawn.result()
    except TimeoutError:
        return Rung(number, config, wrong=f"{TRIED} problems take longer than {seconds:g} s")
    except LOST:
        return Rung(number, config, wrong="it costs its process, for instance by the memory that it takes")
    if isinstance(found, str):
        return Rung(number, config, wrong=" ".join(found.split()))
    if (different := len({problem.question for problem in found})) <= TRIED // 2:
        return Rung(number, config, wrong=f"{len(found)} problems of it are only {different} different ones")
    if (short := sum(fits(problem.question) for problem in found)) <= TRIED // 2:
        return Rung(number, config, wrong=f"only {short} of {len(found)} prompts are within max_prompt_tokens")
    return Rung(number, config, problem=found[0])


def usable(rungs: Sequence[Rung]) -> tuple[Config, ...]:
    """The configs of the levels that can be used; none where there are fewer than two, for then there is nothing to climb."""
    good = tuple(rung.config for rung in rungs if rung.wrong is None)
    return good if len(good) > 1 else ()


def left_out(name: str, rungs: Sequence[Rung]) -> str | None:
    """What cannot be used of a task's ladder and why, in one line; None where all of it can."""
    wrong = [
        f"{_numbers([rung.number for rung in alike])} ({why})"
        for why, alike in groupby(rungs, key=lambda rung: rung.wrong)
        if why is not None
    ]
    number = sum(rung.wrong is None for rung in rungs)
    if not rungs:
        return f"datasets.{name}: reasoning-gym has no curriculum for it; it stays at its config"
    if not usable(rungs):
        found = f"; left out: {', '.join(wrong)}" if wrong else ""
        return f"datasets.{name}: {number} of {len(rungs)} levels{found}; it stays at its config"
    if not wrong:
        return None
    return f"datasets.{name}: {number} of {len(rungs)} levels; left out: {', '.join(wrong)}"


def _numbers(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
