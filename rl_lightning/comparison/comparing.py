"""Paired differences of every contender to the first one, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rl_lightning.comparison.contenders import Contender
from rl_lightning.evaluation import Row, Suite, condition_differences, curriculum_levels, paired_differences

ALL_PROBLEMS = "all problems"

_METRICS = ("n", "accuracy", "low", "high", "standard_error", "mean_score", "mean_tokens", "truncated")
_OPTIONAL_METRICS = ("pass_at_k", "majority_at_k", "constant", "constant_answer")

_TASKS_SHOWN = 8
"""Tasks whose levels are listed below the table."""


def compare(contenders: Sequence[Contender]) -> dict[str, Any]:
    """Compute everything that `comparison.json` contains.

    Args:
        contenders: the reference first; all of one suite.

    Returns:
        suite, reference (its label) and contenders: each with label, file, step, groups, `trained_levels` where it was trained
        with a curriculum, and `rounds_otherwise` where it ran under other conditions than the reference, which may change single
        completions by rounding. The groups are "all problems", the tasks, and the levels of a suite that was made with a
        curriculum; each has its metrics and, except for the reference, difference and difference_score.
    """
    before = {(row["task"], row["index"]): row for row in contenders[0].result["rows"]}
    groups_of = [_groups(contender.result, contenders[0].suite) for contender in contenders]
    names = [name for name in groups_of[0] if all(name in groups for groups in groups_of)]
    found = []
    for contender, known_groups in zip(contenders, groups_of, strict=True):
        groups = {}
        for name in names:
            rows, known = known_groups[name]
            groups[name] = {key: known[key] for key in (*_METRICS, *_OPTIONAL_METRICS) if key in known}
            if contender is not contenders[0]:
                accuracy, score = paired_differences(before, rows)
                groups[name]["difference"], groups[name]["difference_score"] = accuracy, score
        said: dict[str, Any] = {"label": contender.label, "file": str(contender.path), "step": contender.result["step"]}
        if levels := contender.result.get("trained_levels"):
            said["trained_levels"] = levels
        conditions = (each.result.get("ran_with", {}) for each in (contenders[0], contender))
        if differences := condition_differences(*conditions):
            said["rounds_otherwise"] = differences
        found.append({**said, "groups": groups})
    return {"suite": contenders[0].result["suite"], "reference": contenders[0].label, "contenders": found}


def table(comparison: Mapping[str, Any]) -> str:
    """Format a comparison as text, one line for each group of problems and contender."""
    contenders = comparison["contenders"]
    width = max(len(contender["label"]) for contender in contenders)
    wide = max(len(name) for name in contenders[0]["groups"])
    head = f"{'problems':{wide}}     n  {'of':{width}}  accuracy  tokens  difference to {comparison['reference']}, 95% interval"
    lines = [head]
    for name in contenders[0]["groups"]:
        for place, contender in enumerate(contenders):
            found = contender["groups"][name]
            group = f"{name:{wide}} {found['n']:5}" if place == 0 else " " * (wide + 6)
            line = f"{group}  {contender['label']:{width}}     {found['accuracy']:.3f} {found['mean_tokens']:7.1f}"
            lines.append(line + _in_words(found.get("difference")))
        if "constant" in (found := contenders[0]["groups"][name]):
            note = f"always answering {found['constant_answer']!r}"
            lines.append(f"{' ' * (wide + 6)}  {note:{width}}     {found['constant']:.3f}")
    for contender in contenders:
        if levels := contender.get("trained_levels"):
            lines.append(
                f"{contender['label']} was trained with a curriculum, groups by level: {_levels_in_words(levels)}"
            )
        if said := contender.get("rounds_otherwise"):
            lines.append(
                f"{contender['label']} was evaluated under other conditions than {comparison['reference']}, so single completions "
                f"may differ by rounding alone: {'; '.join(said)}; --evaluate evaluates all under the same"
            )
    return "\n".join(lines)


def _in_words(difference: Mapping[str, float] | None) -> str:
    if difference is None:
        return ""
    p = "p < 0.001" if difference["p"] < 0.001 else f"p = {difference['p']:.3f}"
    return f"  {difference['mean']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f}), {p}"


def _levels_in_words(groups: Mapping[str, Mapping[str, int]]) -> str:
    tasks = [
        f"{task} {', '.join(f'{number} at {level}' for level, number in found.items())}"
        for task, found in groups.items()
    ]
    more = f"; and {len(tasks) - _TASKS_SHOWN} tasks more" if len(tasks) > _TASKS_SHOWN else ""
    return "; ".join(tasks[:_TASKS_SHOWN]) + more


def _groups(result: Mapping[str, Any], suite: Suite | None) -> dict[str, tuple[list[Row], Mapping[str, Any]]]:
    """Return the rows and metrics of all problems, where there are several tasks of each, and of each level of a curriculum."""
    rows = result["rows"]
    found = {ALL_PROBLEMS: (rows, result["overall"])}
    levels = {} if suite is None else curriculum_levels(suite)
    for task in sorted({row["task"] for row in rows}):
        of_task = [row for row in rows if row["task"] == task]
        if len(of_task) < len(rows):
            found[task] = of_task, result["tasks"][task]
        for name, at in levels.get(task, {}).items():
            if (metrics := result["levels"].get(task, {}).get(name)) is not None:
                found[f"{task}, {name}"] = [of_task[i] for i in at], metrics
    return found
