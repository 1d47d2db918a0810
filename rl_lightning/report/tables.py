"""Tables of paired differences: a run's first evaluation against its last, and runs against each other."""

from __future__ import annotations

from rl_lightning.report.paired_differences import Metrics, difference_between, metrics_of, since_best, since_start
from rl_lightning.report.run_files import Run


def paired_table(run: Run) -> list[Metrics]:
    """Make one row for all problems, then one for each task and each of its difficulty levels.

    A row has the accuracy at the first and at the last evaluation, their difference, and the difference to the best evaluation.
    """
    if not run.evaluations:
        return []
    first, last = run.evaluations[0], run.evaluations[-1]
    rows = []
    for task in [None, *sorted(last["tasks"])]:
        now = metrics_of(last, task)
        assert now is not None  # the task is one of this evaluation
        row = _row(task or "all problems", metrics_of(first, task), now, since_start(run, task))
        rows.append({**row, "to_best": since_best(run, task)})
        for level, part in last.get("levels", {}).get(task, {}).items():
            before = first.get("levels", {}).get(task, {}).get(level)
            rows.append(
                {**_row(level, before, part, part.get("gain")), "to_best": part.get("gain_best"), "level": True}
            )
    return rows


def _row(label: str, before: Metrics | None, now: Metrics, gain: Metrics | None) -> Metrics:
    return {
        "label": label,
        "n": now["n"],
        "before": before["accuracy"] if before else None,
        "now": now["accuracy"],
        "gain": gain,
        "constant": now.get("constant"),
        "constant_answer": now.get("constant_answer"),
        "pass_at_k": list(now.get("pass_at_k", {}).items())[-1:],
        "majority_at_k": now.get("majority_at_k"),
        "truncated": now.get("truncated"),
        "tokens": now.get("mean_tokens"),
        "level": False,
    }


def compare_runs(runs: list[Run]) -> list[Metrics]:
    """Compare the last evaluation of every other run with the first run's; a difference only where the suites are the same."""
    base = runs[0]
    rows = []
    for run in runs[1:]:
        if not (base.evaluations and run.evaluations):
            continue
        old, new = base.evaluations[-1], run.evaluations[-1]
        for task in [None, *sorted(set(old["tasks"]) & set(new["tasks"]))]:
            now = metrics_of(new, task)
            assert now is not None  # the task is one of both
            row = _row(task or "all problems", metrics_of(old, task), now, difference_between(old, new, task))
            rows.append({**row, "run": run.name})
    return rows
