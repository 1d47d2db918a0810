"""Paired differences of two evaluations, as the run recorded them, or else computed from the rows."""

from __future__ import annotations

from typing import Any

from rl_lightning.report.run_files import Run
from rl_lightning.statistics import paired_difference, sign_flip_p

Metrics = dict[str, Any]


def metrics_of(evaluation: Metrics, task: str | None) -> Metrics | None:
    """Return an evaluation's metrics of a task, or overall if task is None; None if it has no such task."""
    return evaluation["overall"] if task is None else evaluation["tasks"].get(task)


def difference_between(first: Metrics, last: Metrics, task: str | None = None) -> Metrics | None:
    """Compute the paired difference of two evaluations' accuracy.

    Args:
        first: an evaluation as in `eval_step_N.json`.
        last: a later one, or one of another run.
        task: compare one task only.

    Returns:
        n, mean, low, high, p, better and worse (numbers of problems that changed); None if the suites differ, or there is no
        problem to compare.
    """
    if first.get("suite") != last.get("suite"):
        return None
    before = {(row["task"], row["index"]): row["exact"] for row in first.get("rows", [])}
    rows = [
        row for row in last.get("rows", []) if task in (None, row["task"]) and (row["task"], row["index"]) in before
    ]
    if not rows:
        return None
    old = [float(before[row["task"], row["index"]]) for row in rows]
    new = [float(row["exact"]) for row in rows]
    gain = paired_difference(old, new, [row["task"] for row in rows])
    samples = (last.get("samples") or {}).get("samples", 1)
    by = [round(samples * (b - a)) for a, b in zip(old, new, strict=True)]
    changed = {"better": sum(d > 0 for d in by), "worse": sum(d < 0 for d in by), "p": sign_flip_p(by)}
    return {"n": len(rows), "mean": gain.mean, "low": gain.low, "high": gain.high, **changed}


def since_start(run: Run, task: str | None = None) -> Metrics | None:
    """Return the paired difference from the run's first evaluation to its last."""
    return _recorded_or_computed(run.evaluations[0], run.evaluations[-1], task, "gain")


def best_before_last(run: Run) -> Metrics | None:
    """Return the best evaluation of the last one's suite, of equal ones the latest; None if that is the last one itself."""
    if not run.evaluations:
        return None
    last = run.evaluations[-1]
    same = [e for e in run.evaluations if e.get("suite") == last.get("suite")]
    best = max(same, key=lambda e: (e["overall"]["accuracy"], e["step"]))
    return None if best is last else best


def since_best(run: Run, task: str | None = None) -> Metrics | None:
    """Return the paired difference from the best evaluation to the last; None if they are the same."""
    best = best_before_last(run)
    return best and _recorded_or_computed(best, run.evaluations[-1], task, "gain_best")


def _recorded_or_computed(before: Metrics, last: Metrics, task: str | None, name: str) -> Metrics | None:
    """Return the difference that the last evaluation recorded under that name, completed by what its rows say."""
    if before is last or before.get("suite") != last.get("suite"):
        return None
    recorded = (metrics_of(last, task) or {}).get(name) or {}
    return {**(difference_between(before, last, task) or {}), **recorded} or None
