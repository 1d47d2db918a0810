"""Paired differences of two evaluations: what the run recorded where it did, worked out from the rows where it did not."""

from __future__ import annotations

from typing import Any

from rl_lightning.report.run_files import Run
from rl_lightning.statistics import paired_difference, sign_flip_p

Figures = dict[str, Any]


def figures_of(evaluation: Figures, task: str | None) -> Figures | None:
    """Of a task, or of the whole; None where it has no such task."""
    return evaluation["overall"] if task is None else evaluation["tasks"].get(task)


def gain_between(first: Figures, last: Figures, task: str | None = None) -> Figures | None:
    """The paired difference of two evaluations' accuracy on the problems of one suite.

    Args:
        first: as in `eval_step_N.json`.
        last: the same, later or of another run.
        task: of one task only.

    Returns:
        n, mean, low, high, p, better and worse (problems that changed); None where the suites differ, or nothing is left.
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


def since_start(run: Run, task: str | None = None) -> Figures | None:
    """From the run's first evaluation to its last."""
    return _gain(run.evaluations[0], run.evaluations[-1], task, "gain")


def best_before_last(run: Run) -> Figures | None:
    """The best evaluation of the last one's suite, the later of equals; None where that is the last one."""
    if not run.evaluations:
        return None
    last = run.evaluations[-1]
    same = [e for e in run.evaluations if e.get("suite") == last.get("suite")]
    best = max(same, key=lambda e: (e["overall"]["accuracy"], e["step"]))
    return None if best is last else best


def since_best(run: Run, task: str | None = None) -> Figures | None:
    """From the best evaluation to the last, where they are two."""
    best = best_before_last(run)
    return best and _gain(best, run.evaluations[-1], task, "gain_best")


def _gain(before: Figures, last: Figures, task: str | None, name: str) -> Figures | None:
    """What the last evaluation recorded under that name goes before what its rows say."""
    if before is last or before.get("suite") != last.get("suite"):
        return None
    recorded = (figures_of(last, task) or {}).get(name) or {}
    return {**(gain_between(before, last, task) or {}), **recorded} or None
