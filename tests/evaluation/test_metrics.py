"""Metrics of an evaluation, worked out by hand."""

from __future__ import annotations

import json
import math

import pytest
import torch

from rl_lightning.evaluation import PastEvaluations, evaluation_result
from rl_lightning.evaluation.constant_baseline import constant_answers
from rl_lightning.evaluation.metrics import compute_metrics, result_rows
from rl_lightning.evaluation.past_evaluations import read_result
from rl_lightning.evaluation.suite import make_suite
from rl_lightning.types import Problem, Rollout, Score, UserError


def row(index, exact, tokens=10, truncated=False, partial=None, task="t"):
    partial = exact if partial is None else partial
    return {
        "task": task,
        "index": index,
        "exact": exact,
        "partial": partial,
        "tokens": tokens,
        "truncated": truncated,
        "answer": "a",
        "completion": "…",
    }


def test_metrics_of_four_problems():
    found = compute_metrics([row(0, 1.0, 8), row(1, 0.0, 12, True, 0.5), row(2, 1.0), row(3, 1.0)])
    assert found["n"] == 4
    assert (found["accuracy"], found["mean_score"], found["mean_tokens"], found["truncated"]) == (0.75, 0.875, 10, 0.25)
    assert (round(found["low"], 3), round(found["high"], 3)) == (0.301, 0.954)  # Wilson's, 3 of 4
    assert math.isclose(found["standard_error"], (found["high"] - found["low"]) / 3.92)
    assert "gain" not in found


def test_all_right_has_an_error_too():
    assert compute_metrics([row(i, 1.0) for i in range(20)])["standard_error"] > 0.03


def completions(texts, group):
    n = len(texts)
    mask = torch.zeros(n, 9, dtype=torch.bool)
    for i, text in enumerate(texts):
        mask[i, : len(text)] = True
    prompts, zeros = torch.zeros(n // group, 2, dtype=torch.int64), torch.zeros(n, 9)
    finished = torch.tensor([len(text) < 9 for text in texts])
    return Rollout(prompts, prompts[:, 0] + 2, zeros.long(), mask, zeros, finished, tuple(texts))


def test_rows_of_samples_hold_their_means_and_all_of_them():
    """Two samples per problem; the rows are sorted by task and index, whatever order the problems were in."""
    problems = [Problem("?", task="t", index=1), Problem("?", task="t", index=0)]
    scores = [
        Score(1.0, 1.0, True, "4"),
        Score(0.0, 0.2, True, "5"),
        Score(0.0, 0.0, True, "5"),
        Score(0.0, 0.0, True, None),
    ]
    rows = result_rows(problems, completions(["a", "bb", "ccccccccc", "d"], 2), scores)
    assert [r["index"] for r in rows] == [0, 1]
    assert (rows[1]["exact"], rows[1]["partial"], rows[1]["tokens"], rows[1]["completion"]) == (0.5, 0.6, 1.5, "a")
    assert [s["truncated"] for s in rows[0]["samples"]] == [True, False]
    found = compute_metrics(rows)
    assert found["pass_at_k"] == {"1": 0.25, "2": 0.5}
    assert found["majority_at_k"] == 0.25  # problem 1: a tie of one right and one wrong
    greedy = result_rows(problems, completions(["a", "bb"], 1), scores[:2])
    assert "samples" not in greedy[0]


SUITE = make_suite(
    tuple(
        Problem(f"{task} {i}", expected="1", difficulty={"size": i // 3}, task=task, index=i)
        for task in ("s", "t")
        for i in range(6)
    ),
    64,
    "",
    None,
    0,
    {"s": {}, "t": {}},
)


def evaluated(directory, step, right, past=None, suite=SUITE, ran_with={}):  # noqa: B006
    """Evaluate with the problems (task, index) of `right` answered, and write it as a run does."""
    rows = [row(p["index"], float((p["task"], p["index"]) in right), task=p["task"]) for p in suite.problems]
    result = evaluation_result(
        step, rows, suite, past or PastEvaluations(directory), {"t": {"constant": 0.4}}, ran_with
    )
    (directory / f"eval_step_{step}.json").write_text(json.dumps({**result, "rows": rows}))
    return result


def test_evaluations_that_round_otherwise_are_named(tmp_path):
    first = {"rows_at_once": 40, "device": "cpu"}
    evaluated(tmp_path, 0, [("t", 0)], ran_with=first)
    assert "rounds_otherwise" not in evaluated(tmp_path, 10, [("t", 1)], ran_with={**first, "weights": "merged"})
    found = evaluated(tmp_path, 20, [("t", 1)], ran_with={"rows_at_once": 20, "device": "cpu"})
    assert found["ran_with"]["rows_at_once"] == 20
    assert found["rounds_otherwise"] == {"step": 0, "what": ["rows_at_once was 40 and is 20"]}


def test_differences_to_step_0_and_to_the_best(tmp_path):
    """Right at step 0: t0; at 10: t0 t1 t2 s0; at 20: t1 t2 s1."""
    past = PastEvaluations(tmp_path)
    first = evaluated(tmp_path, 0, {("t", 0)}, past)
    assert "gain" not in first["overall"]
    assert "best" not in first
    second = evaluated(tmp_path, 10, {("t", 0), ("t", 1), ("t", 2), ("s", 0)}, past)
    assert second["best"]["step"] == 0
    assert second["overall"]["gain_best"] == second["overall"]["gain"]
    third = evaluated(tmp_path, 20, {("t", 1), ("t", 2), ("s", 1)}, past)
    assert third["overall"]["gain"]["mean"] == pytest.approx(2 / 12)
    assert third["overall"]["gain"]["p"] == 0.625  # McNemar: 3 better, 1 worse
    assert third["best"] == {"step": 10, "accuracy": 4 / 12, "gain": third["overall"]["gain_best"]}
    assert third["overall"]["gain_best"]["mean"] == pytest.approx(-1 / 12)
    assert third["tasks"]["t"]["gain"]["mean"] == pytest.approx(1 / 6)
    assert third["tasks"]["t"]["constant"] == 0.4
    assert third["levels"]["t"]["size 0"]["n"] == 3
    assert third["levels"]["t"]["size 0"]["gain"]["mean"] == pytest.approx(1 / 3)
    assert third["levels"]["s"]["size 1"]["accuracy"] == 0


def test_another_suite_is_not_compared_with(tmp_path):
    evaluated(tmp_path, 0, {("t", 0)})
    longer = make_suite(
        tuple(Problem(p["question"], task=p["task"], index=p["index"]) for p in SUITE.problems),
        99,
        "",
        None,
        0,
        {"s": {}, "t": {}},
    )
    assert "gain" not in evaluated(tmp_path, 10, set(), suite=longer)["overall"]
    assert "best" not in evaluated(tmp_path, 10, set(), suite=longer)


def test_what_is_no_evaluation_is_named(tmp_path):
    path = tmp_path / "eval_step_0.json"
    for text in ("{", "{}", '{"rows": [{}]}'):
        path.write_text(text)
        with pytest.raises(UserError, match="eval_step_0.json: not an evaluation of rl_lightning"):
            read_result(path)


def test_the_best_constant_answer_is_scored_by_the_tasks_own_scorer():
    """The commonest answer of `yes_no` is right in 2 of 3 problems, and the scorer takes it for a third."""
    problems = [Problem("?", expected=a, task="yes_no", index=i) for i, a in enumerate(["Yes", "Yes", "yes"])]
    problems += [Problem("?", expected=str(i), task="sums", index=i) for i in range(20)]

    def scorer(asked, answers):
        right = [p.expected.lower() == a.lower() for p, a in zip(asked, answers, strict=True)]
        return [Score(float(r), float(r), True, "a") for r in right]

    assert constant_answers(problems, scorer) == {"yes_no": {"constant": 1.0, "constant_answer": "Yes"}}
