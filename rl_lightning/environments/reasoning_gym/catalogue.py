"""The texts of `python -m rl_lightning tasks`: the list of tasks, a task's settings and problems, and its levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import yaml

from rl_lightning.environments.environment import Config, Environment, GenerationFailed
from rl_lightning.environments.levels import MAX_SECONDS, LevelCheck, check_levels, usable
from rl_lightning.environments.reasoning_gym.descriptions import DESCRIPTIONS
from rl_lightning.environments.reasoning_gym.problem_checks import PROBLEM_RULES
from rl_lightning.environments.reasoning_gym.task import (
    ITEM_SEEDS,
    ReasoningGymTask,
    category,
    config_defaults,
    task_names,
)
from rl_lightning.types import Problem


def catalogue() -> str:
    """All tasks by category, one line each."""
    lines: list[str] = []
    by_category: dict[str, list[str]] = {}
    for name in task_names():
        by_category.setdefault(category(name), []).append(name)
    for title, names in sorted(by_category.items()):
        lines += ["", title]
        for name in names:
            lines.append(f"  {name:26} {DESCRIPTIONS[name]}")
    return "\n".join(lines[1:])


def describe(name: str) -> str:
    """One task: its description, its settings with their defaults, and two problems with their answers.

    Raises:
        UserError: the task does not exist.
    """
    task = ReasoningGymTask(name, {})
    parts = [task.describe()]
    settings = yaml.safe_dump(
        {name: {"weight": 1.0, "config": _tuples_to_lists(config_defaults(name))}}, sort_keys=False
    )
    parts.append("Settings, with their defaults:\n\n" + _indent("datasets:\n" + _indent(settings)))
    if name in PROBLEM_RULES:
        parts.append(
            "Left out are problems whose answer by reasoning-gym is wrong, or one of several: docs/scoring.md."
        )
    for number, problem in enumerate(islice(_problems(task), 2)):
        parts.append(f"Problem {number + 1}:\n\n{_indent(problem.question.strip())}\n\nAnswer: {problem.expected}")
    return "\n\n".join(parts)


def _problems(task: ReasoningGymTask) -> Iterator[Problem]:
    """The task's problems, without the seeds that have none."""
    for seed in range(ITEM_SEEDS):
        try:
            yield task.problem(seed)
        except GenerationFailed as error:
            if error.reason != "wrong_answer":
                raise


def describe_levels(name: str, task: Environment, own: Sequence[Config] = ()) -> str:
    """One task's levels: what each level changes, with a problem and its answer; and which levels are not usable, and why.

    A level has the time that it has at the start of a run.

    Args:
        name: of the task.
        task: the task.
        own: the user's levels of it; empty for those of the task, or of reasoning-gym's curriculum.
    """
    checks = check_levels({name: task}, {name: task.levels(own)}, MAX_SECONDS, workers=2)[name]
    parts = [task.describe()]
    if not usable(checks):
        parts.append("With a curriculum the task stays at its config: it has fewer than two usable levels.")
    previous, number = config_defaults(task.name) if isinstance(task, ReasoningGymTask) else dict(task.config), 0
    for check in checks:
        if check.wrong is None:
            parts.append(_describe_level(number, check, previous))
            previous, number = {**previous, **check.config}, number + 1
        else:
            parts.append(f"Left out: level {check.number}: {check.wrong}")
    return "\n\n".join(parts)


def _describe_level(number: int, check: LevelCheck, previous: dict[str, Any]) -> str:
    """A level, as the difference to the config of the previous one."""
    changes = [
        f"{key}: {_format(value)}" if number == 0 else f"{key}: {_format(previous.get(key))} -> {_format(value)}"
        for key, value in check.config.items()
        if number == 0 or value != previous.get(key)
    ]
    assert check.problem is not None  # the level is usable
    problem = f"{_indent(check.problem.question.strip())}\n\n  Answer: {check.problem.expected}"
    return f"Level {number}: {', '.join(changes)}\n\n{problem}"


def _format(value: object) -> str:
    return str(_tuples_to_lists(value))


def _tuples_to_lists(value: object) -> object:
    """The value with lists in place of tuples and sets, for YAML."""
    if isinstance(value, dict):
        return {str(k): _tuples_to_lists(v) for k, v in value.items()}
    return [_tuples_to_lists(v) for v in value] if isinstance(value, (list, tuple, set)) else value


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.rstrip().splitlines())
