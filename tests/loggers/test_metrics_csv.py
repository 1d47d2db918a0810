"""The rows of metrics.csv: after a kill, and one step's beside another's."""

from __future__ import annotations

import csv

import pandas as pd

from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.loggers.metrics_csv import MetricsCSV
from tests.runs import SUMS, run


def test_metrics_survive_a_kill_in_the_middle_of_a_row(tmp_path):
    logger = MetricsCSV(str(tmp_path))
    for step in (1, 2, 3):
        logger.log_metrics({"a": step, "b": 0.5}, step=step)
    with logger.path.open("a") as file:
        file.write("4,0.")
    again = MetricsCSV(str(tmp_path))
    again.resume_after(2)
    again.log_metrics({"a": 3, "c": 1}, step=3)
    rows = list(csv.DictReader(logger.path.open()))
    assert [(r["step"], r["a"], r["b"], r["c"]) for r in rows] == [
        ("1", "1.0", "0.5", ""),
        ("2", "2.0", "0.5", ""),
        ("3", "3.0", "", "1.0"),
    ]


def test_a_step_does_not_repeat_the_metrics_of_another(tmp_path):
    """Lightning's own way to the loggers does: of two tasks, it repeats the metrics of the one that is not there."""
    two = {**SUMS, "leg_counting": TaskSpec(config={"max_animals": 4})}
    run(tmp_path, 6, evaluate=False, tasks=two)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    rollouts = pd.read_parquet(tmp_path / "rollouts")
    for step, row in enumerate(rows, 1):
        tasks = set(rollouts[rollouts.step == step].task)
        shown = {task for task in two if row.get(f"groups/{task}/with_variance")}
        assert shown == (tasks if len(tasks) > 1 else set())
