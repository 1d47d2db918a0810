"""Better, worse, or luck: on numbers worked out by hand or in another way."""

from __future__ import annotations

import math

import pytest

from rl_lightning.report.curves import decimate
from rl_lightning.report.paired_differences import difference_between
from rl_lightning.report.run_files import Run
from rl_lightning.report.verdict import training_summary, verdict


def evaluation(step, right, n=100, suite="s", task=lambda index: "t"):
    rows = [{"task": task(i), "index": i, "exact": float(i in right), "completion": "", "tokens": 1} for i in range(n)]
    tasks = {row["task"] for row in rows}
    metrics = {t: metrics_of([r for r in rows if r["task"] == t]) for t in tasks}
    return {"step": step, "suite": suite, "overall": metrics_of(rows), "tasks": metrics, "rows": rows}


def metrics_of(rows):
    accuracy = sum(row["exact"] for row in rows) / len(rows)
    return {"n": len(rows), "accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1}


def verdict_of(tmp_path, *evaluations):
    run = Run(tmp_path, "run")
    run.__dict__["evaluations"] = list(evaluations)
    return verdict(run)


def test_a_gain_beyond_luck_is_a_yes(tmp_path):
    said = verdict_of(tmp_path, evaluation(0, range(20)), evaluation(10, range(60)))
    assert said["tone"] == "good"
    assert said["text"].startswith("Of 100 held-out problems it answers 60.0% exactly at step 10, and 20.0% at step 0")
    assert "a gain of 40.0 points" in said["text"]


def test_a_loss_beyond_luck_is_a_no(tmp_path):
    assert verdict_of(tmp_path, evaluation(0, range(60)), evaluation(10, range(20)))["tone"] == "bad"


def test_two_problems_more_may_be_luck(tmp_path):
    said = verdict_of(tmp_path, evaluation(0, range(20)), evaluation(10, range(22)))
    assert said["tone"] == "undecided"
    assert said["word"] == "No clear change."
    assert said["text"].endswith("That may be chance.")


def test_a_gain_does_not_hide_a_task_that_got_worse(tmp_path):
    def task(index):
        return "easy" if index < 80 else "hard"

    said = verdict_of(tmp_path, evaluation(0, range(80, 100), task=task), evaluation(10, range(60), task=task))
    assert said["tone"] == "good"
    assert said["text"].endswith("It got worse at hard.")


def test_a_gain_does_not_hide_a_better_evaluation_on_the_way(tmp_path):
    said = verdict_of(tmp_path, evaluation(0, range(20)), evaluation(10, range(90)), evaluation(20, range(60)))
    assert said["tone"] == "good"
    assert "It was better at step 10, by 30.0 points" in said["text"]


def test_other_problems_cannot_be_compared(tmp_path):
    assert (
        verdict_of(tmp_path, evaluation(0, range(20)), evaluation(9, range(60), suite="r"))["word"] == "Cannot be said."
    )


def test_runs_that_were_asked_other_problems_have_no_difference():
    one, other = evaluation(10, range(20)), evaluation(10, range(60))
    assert difference_between(one, other)["mean"] == pytest.approx(0.4)
    assert difference_between(one, {**other, "suite": "r"}) is None


def test_one_evaluation_is_no_answer(tmp_path):
    assert verdict_of(tmp_path, evaluation(0, range(20)))["word"] == "Not known yet."


def test_a_difference_between_runs_counts_what_changed():
    gain = difference_between(evaluation(10, range(1, 9)), evaluation(10, range(2)))
    assert (gain["better"], gain["worse"], gain["mean"]) == (1, 7, -0.06)
    assert gain["low"] < -0.06 < gain["high"]
    assert gain["p"] == pytest.approx(2 * (1 + 8) / 2**8)


def test_joined_points_keep_their_extremes_and_gaps():
    values = [0.0] * 1000
    values[500] = 9.0
    values[0:3] = [math.nan] * 3
    line = decimate(list(range(1000)), values)
    assert len(line["x"]) == 334
    assert max(high for high in line["high"] if high is not None) == 9
    assert line["y"][0] is None


def test_the_summary_names_several_ranks_and_how_long_they_wait(tmp_path):
    run = Run(tmp_path, "run")
    run.__dict__["evaluations"], run.__dict__["metrics"] = [], {"time/sample": ([1, 2], [2.0, 2.0])}
    assert dict(training_summary(run)) == {"Time per optimizer step": "2 s"}
    run.__dict__["metrics"] |= {"time/ranks": ([1, 2], [4.0, 4.0]), "time/ranks_waiting": ([1, 2], [0.1, 0.3])}
    assert list(dict(training_summary(run)).items())[1:] == [("Ranks", "4"), ("Ranks wait", "20% of the time")]


def test_time_is_that_of_an_optimizer_step_as_on_the_axes(tmp_path):
    """A rollout of 3 s with two updates: 1.5 s per optimizer step."""
    run = Run(tmp_path, "run")
    run.__dict__["evaluations"], run.__dict__["metrics"] = [], {"time/sample": ([2], [1.0]), "time/train": ([2], [2.0])}
    run.__dict__["config"] = "model:\n  objective:\n    num_iterations: 2\n"
    assert dict(training_summary(run)) == {"Time per optimizer step": "1.5 s"}
