"""`python -m rl_lightning tasks`: what there is to learn."""

from __future__ import annotations

import yaml

from rl_lightning.tasks.descriptions import DESCRIPTIONS
from rl_lightning.tasks.generator import Task, category, config_defaults, task_names


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


def _plain(value: object) -> object:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple, set)) else value


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.rstrip().splitlines())
