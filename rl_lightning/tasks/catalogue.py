"""`python -m rl_lightning tasks`: what there is to learn."""

from __future__ import annotations

from typing import Any

import yaml

from rl_lightning.tasks.descriptions import DESCRIPTIONS
from rl_lightning.tasks.generator import Task, category, config_defaults, task_names
from rl_lightning.tasks.ladders import Rung, candidates, try_ladders, usable


def catalogue() -> str:
    """All tasks by category, a line each."""
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
    """One task: what it is, its settings with their defaults, two problems with their answers.

    Raises:
        UserError: no such task.
    """
    task = Task(name, {})
    parts = [f"{name} ({category(name)}): {DESCRIPTIONS[name]}"]
    settings = yaml.safe_dump({name: {"weight": 1.0, "config": _plain(config_defaults(name))}}, sort_keys=False)
    parts.append("Settings, with their defaults:\n\n" + _indent("datasets:\n" + _indent(settings)))
    for number in range(2):
        problem = task.problem(item_seed=number, index=number)
        parts.append(
            f"Problem {number + 1}:\n\n{_indent(problem.question.strip())}\n\nAnswer: {problem.entry['answer']}"
        )
    return "\n\n".join(parts)


def describe_levels(name: str, seconds: float = 60.0) -> str:
    """One task's ladder by reasoning-gym's curriculum: what each level changes, with a problem and its answer; and what cannot be
    used of it, and why.

    Args:
        name: the task.
        seconds: time limit of a level, as `data.problem_seconds`.

    Raises:
        UserError: no such task.
    """
    task = Task(name, {})
    rungs = try_ladders({name: task}, {name: candidates(task)}, seconds, workers=2)[name]
    parts = [f"{name} ({category(name)}): {DESCRIPTIONS[name]}"]
    if not usable(rungs):
        parts.append(
            "A curriculum leaves it at its config: reasoning-gym has fewer than two levels of it that can be used."
        )
    before, number = config_defaults(name), 0
    for rung in rungs:
        if rung.wrong is None:
            parts.append(_level(number, rung, before))
            before, number = {**before, **rung.config}, number + 1
        else:
            parts.append(f"Left out: level {rung.number} of reasoning-gym's curriculum: {rung.wrong}")
    return "\n\n".join(parts)


def _level(number: int, rung: Rung, before: dict[str, Any]) -> str:
    """A level, against the config of the one before."""
    changes = [
        f"{key}: {_said(value)}" if number == 0 else f"{key}: {_said(before.get(key))} -> {_said(value)}"
        for key, value in rung.config.items()
        if number == 0 or value != before.get(key)
    ]
    assert rung.problem is not None  # it can be used
    asked = f"{_indent(rung.problem.question.strip())}\n\n  Answer: {rung.problem.entry['answer']}"
    return f"Level {number}: {', '.join(changes)}\n\n{asked}"


def _said(value: object) -> str:
    return str(_plain(value))


def _plain(value: object) -> object:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple, set)) else value


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.rstrip().splitlines())
