"""One evaluation as it is written: the whole, each task, each level, and against what came before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl_lightning.evaluation.figures import figures
from rl_lightning.evaluation.levels import levels
from rl_lightning.evaluation.past import Evaluation, PastEvaluations, Row
from rl_lightning.evaluation.suite import Suite, differences, stored_suite


def evaluation_result(
    step: int, rows: Sequence[Row], suite: Suite, past: PastEvaluations, constants: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """All figures, without the rows; docs/evaluation.md describes the fields.

    Args:
        step: optimizer step.
        rows: of the whole suite, sorted.
        suite: what was asked.
        past: the run's evaluations.
        constants: task to figures of the best constant answer.
    """
    earlier = past.before(step)
    same = [evaluation for evaluation in earlier if evaluation.suite == suite.hash]
    first = same[0] if same and same[0].step == 0 else None
    best = max(same, key=lambda e: (e.accuracy, e.step), default=None)
    result: dict[str, Any] = {"step": step, "suite": suite.hash}
    if suite.decoding:
        result["samples"] = suite.decoding
    result["overall"] = figures(rows, first, best)
    places = {task: [i for i, row in enumerate(rows) if row["task"] == task] for task in sorted(suite.datasets)}
    result["tasks"] = {
        task: {**figures([rows[i] for i in at], first, best), **constants.get(task, {})}
        for task, at in places.items()
        if at
    }
    result["levels"] = {
        task: {name: figures([rows[at[i]] for i in some], first, best) for name, some in found.items()}
        for task, at in places.items()
        if (found := levels([suite.problems[i]["level"] for i in at]))
    }
    if best is not None:
        result["best"] = {"step": best.step, "accuracy": best.accuracy, "gain": result["overall"]["gain_best"]}
    return result


def suite_change(suite: Suite, past: PastEvaluations, step: int, directory: Path) -> tuple[int, list[str]] | None:
    """The latest earlier evaluation that asked something else, and what: step, and the differences in words; None where all
    asked the same.

    Args:
        suite: what is asked now.
        past: the run's evaluations.
        step: now.
        directory: where suites are stored.
    """
    others = [evaluation for evaluation in past.before(step) if evaluation.suite != suite.hash]
    if not others:
        return None
    other: Evaluation = others[-1]
    before = stored_suite(directory, other.suite)
    said = differences(before, suite) if before else ["its suite was not stored"]
    return other.step, said
