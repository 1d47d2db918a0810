"""Assemble an evaluation as it is written: metrics overall, by task and by level, with differences to earlier evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl_lightning.evaluation.conditions import Conditions, condition_differences
from rl_lightning.evaluation.difficulty import levels
from rl_lightning.evaluation.metrics import compute_metrics
from rl_lightning.evaluation.past_evaluations import Evaluation, PastEvaluations, Row
from rl_lightning.evaluation.suite import Suite, differences, stored_suite


def evaluation_result(
    step: int,
    rows: Sequence[Row],
    suite: Suite,
    past: PastEvaluations,
    constants: Mapping[str, Mapping[str, Any]],
    ran_with: Conditions,
) -> dict[str, Any]:
    """Compute everything except the rows; docs/evaluation.md describes the fields.

    Args:
        step: optimizer step.
        rows: the rows of the whole suite, sorted.
        suite: the suite that was evaluated.
        past: the run's earlier evaluations. Those of the same suite are compared with.
        constants: task to its best constant answer and that answer's accuracy, as `constant_answers` returns them.
        ran_with: what the evaluation ran under.
    """
    earlier = past.before(step)
    same = [evaluation for evaluation in earlier if evaluation.suite == suite.hash]
    first = same[0] if same and same[0].step == 0 else None
    best = max(same, key=lambda e: (e.accuracy, e.step), default=None)
    result: dict[str, Any] = {"step": step, "suite": suite.hash, "ran_with": dict(ran_with)}
    for other in (best, first):
        if other is not None and (said := condition_differences(other.ran_with, ran_with)):
            result["rounds_otherwise"] = {"step": other.step, "what": said}
    if suite.decoding:
        result["samples"] = suite.decoding
    result["overall"] = compute_metrics(rows, first, best)
    positions = {task: [i for i, row in enumerate(rows) if row["task"] == task] for task in sorted(suite.datasets)}
    result["tasks"] = {
        task: {**compute_metrics([rows[i] for i in at], first, best), **constants.get(task, {})}
        for task, at in positions.items()
        if at
    }
    result["levels"] = {
        task: {name: compute_metrics([rows[at[i]] for i in some], first, best) for name, some in found.items()}
        for task, at in positions.items()
        if (found := levels([suite.problems[i]["level"] for i in at]))
    }
    if best is not None:
        result["best"] = {"step": best.step, "accuracy": best.accuracy, "gain": result["overall"]["gain_best"]}
    return result


def suite_change(suite: Suite, past: PastEvaluations, step: int, directory: Path) -> tuple[int, list[str]] | None:
    """Find the latest earlier evaluation with another suite.

    Args:
        suite: the suite of the evaluation now.
        past: the run's earlier evaluations.
        step: the step now.
        directory: where suites are stored.

    Returns:
        that evaluation's step, and the differences in words; None if all earlier evaluations had this suite.
    """
    others = [evaluation for evaluation in past.before(step) if evaluation.suite != suite.hash]
    if not others:
        return None
    other: Evaluation = others[-1]
    before = stored_suite(directory, other.suite)
    said = differences(before, suite) if before else ["its suite was not stored"]
    return other.step, said
