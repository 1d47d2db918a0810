"""Find the usable difficulty levels of a task, by generating a few problems of each before training needs thousands.

A level is a config. Some levels are refused by their own task, fail, or take seconds per problem.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import groupby

from rl_lightning.environments.environment import Config, Environment, GenerationFailed
from rl_lightning.sandbox import WORKER_FAILURES, SandboxPool
from rl_lightning.types import Problem

MAX_SECONDS = 10.0
"""Time limit of creating a level and generating its first problems; training needs thousands of them."""

REFUSED = "refused by the task"

PROBLEMS_TRIED = 8
"""Problems generated of each level to check it; more than half of them must succeed, be distinct, and be short enough."""

_SEEDS_TRIED = 4 * PROBLEMS_TRIED
"""Seeds after which the check ends, where the answers of many are wrong."""


@dataclass(frozen=True)
class LevelCheck:
    """The result of checking one level.

    Attributes:
        number: the level's index in the given levels.
        config: its complete config.
        problem: a problem of the level; None if the level is not usable.
        wrong: why the level is not usable, or None.
    """

    number: int
    config: Config
    problem: Problem | None = None
    wrong: str | None = None


class LevelTrial:
    """Generates the first problems of a level, in a sandboxed process.

    Args:
        tasks: task name to the task, with any valid config.
    """

    def __init__(self, tasks: Mapping[str, Environment]) -> None:
        self._tasks = dict(tasks)

    def draw(self, name: str, config: Config) -> list[Problem] | str:
        """Up to PROBLEMS_TRIED problems, or the reason why no more than half of them could be generated."""
        try:
            task = self._tasks[name].at_level(config)
        except Exception as error:  # a constructor may raise any exception; all mean that the level is invalid
            return f"{REFUSED}: {error.__cause__ or error}"
        problems, failure, tried = [], "", 0
        for seed in range(_SEEDS_TRIED):
            try:
                problems.append(task.problem(seed))
            except GenerationFailed as error:
                failure = error.detail
                if error.reason == "wrong_answer":  # of these there are many in some tasks, and the stream takes others
                    continue
            tried += 1
            if tried == PROBLEMS_TRIED:
                break
        return problems if len(problems) > PROBLEMS_TRIED // 2 else f"its generator fails: {failure}"


def check_levels(
    tasks: Mapping[str, Environment],
    levels: Mapping[str, Sequence[Config]],
    seconds: float,
    workers: int = 1,
    fits: Callable[[str, str], bool] = lambda task, question: True,
) -> dict[str, list[LevelCheck]]:
    """Check every level of every task.

    Args:
        tasks: task name to the task, with its own config.
        levels: task name to its levels, as `Environment.levels` returns them.
        seconds: time limit of creating a level and generating its first problems.
        workers: number of processes in which levels are checked; at least 1.
        fits: whether a question of a task is short enough.

    Returns:
        task name to the results of its levels, in order.
    """
    pool = SandboxPool(LevelTrial(tasks), workers)
    try:
        futures = {
            name: [
                None if number and config == configs[number - 1] else pool.call("draw", name, config, seconds=seconds)
                for number, config in enumerate(configs)
            ]
            for name, configs in levels.items()
        }
        return {
            name: [
                _check_level(number, levels[name][number], future, seconds, partial(fits, name))
                for number, future in enumerate(futures[name])
            ]
            for name in levels
        }
    finally:
        pool.close()


def _check_level(
    number: int,
    config: Config,
    future: Future[list[Problem] | str] | None,
    seconds: float,
    fits: Callable[[str], bool],
) -> LevelCheck:
    if future is None:
        return LevelCheck(number, config, wrong="the same as the level before")
    try:
        problems = future.result()
    except TimeoutError:
        return LevelCheck(number, config, wrong=f"{PROBLEMS_TRIED} problems take longer than {seconds:g} s")
    except WORKER_FAILURES:
        return LevelCheck(number, config, wrong="its generator kills its process, for example by using too much memory")
    if isinstance(problems, str):
        return LevelCheck(number, config, wrong=" ".join(problems.split()))
    if (different := len({problem.question for problem in problems})) <= PROBLEMS_TRIED // 2:
        return LevelCheck(number, config, wrong=f"only {different} of {len(problems)} problems are different")
    if (short := sum(fits(problem.question) for problem in problems)) <= PROBLEMS_TRIED // 2:
        return LevelCheck(number, config, wrong=f"only {short} of {len(problems)} prompts are within max_prompt_tokens")
    return LevelCheck(number, config, problem=problems[0])


def usable(checks: Sequence[LevelCheck]) -> tuple[Config, ...]:
    """The configs of the usable levels; empty if there are fewer than two, because a curriculum then cannot change the level."""
    configs = tuple(check.config for check in checks if check.wrong is None)
    return configs if len(configs) > 1 else ()


def left_out(name: str, checks: Sequence[LevelCheck]) -> str | None:
    """One line that says which of a task's levels are not usable, and why; None if all are."""
    wrong = [
        f"{_number_range([check.number for check in same_reason])} ({why})"
        for why, same_reason in groupby(checks, key=lambda check: check.wrong)
        if why is not None
    ]
    number = sum(check.wrong is None for check in checks)
    if not checks:
        return f"datasets.{name}: it has no levels; it stays at its config"
    if not usable(checks):
        reasons = f"; left out: {', '.join(wrong)}" if wrong else ""
        return f"datasets.{name}: {number} of {len(checks)} levels{reasons}; it stays at its config"
    if not wrong:
        return None
    return f"datasets.{name}: {number} of {len(checks)} levels; left out: {', '.join(wrong)}"


def _number_range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
