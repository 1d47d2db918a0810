from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from rl_lightning.scoring import Reward, Scorer, WeightedReward
from rl_lightning.tasks.stream import TaskMixture, TaskSpec
from rl_lightning.types import Problem, Score

PROBLEM = Problem("t", 0, "q", {"question": "q", "answer": "1", "metadata": {}})


class Odd:
    """A mixture whose scorer does what the answer says."""

    def scores(self, asked):
        return [self.score(answer) for _, answer in asked]

    def score(self, answer):
        word, _, value = answer.partition(" ")
        if word == "loop":
            while True:
                pass
        if word == "power":
            return float(len(str(9**9**9)))
        if word == "die":
            os._exit(3)
        if word == "asked":
            return float(os.getpid() % 7 + time.monotonic_ns() % 1_000_000) / 1e9
        return float(value) if word == "value" else word


@pytest.fixture(scope="module")
def scorer():
    scorer = Scorer(Odd(), workers=2, seconds=0.5)
    yield scorer
    scorer.close()


def of(answer: str) -> str:
    return f"<think></think><answer>{answer}</answer>"


def test_what_a_scorer_names_is_zero_and_named(scorer):
    (result,) = scorer([PROBLEM], [of("raised_SystemExit")])
    assert (result.exact, result.partial, result.failure) == (0, 0, "raised_SystemExit")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_scores_that_are_not_finite_are_zero(scorer, value):
    (result,) = scorer([PROBLEM], [of(f"value {value}")])
    assert (result.exact, result.partial, result.failure) == (0, 0, "not_finite")


@pytest.mark.parametrize("text", ["", "42", "<answer></answer>", "<answer>  </answer>", "<answer>42"])
def test_no_answer_is_zero(scorer, text):
    (result,) = scorer([PROBLEM], [text])
    assert (result.exact, result.partial, result.answer, result.failure) == (0, 0, None, "no_answer")


@pytest.mark.parametrize(("value", "exact", "partial"), [("1.0", 1, 1), ("0.99", 0, 0.99), ("7", 1, 1), ("-3", 0, 0)])
def test_exact_is_full_marks_and_partial_is_clamped(scorer, value, exact, partial):
    (result,) = scorer([PROBLEM], [of(f"value {value}")])
    assert (result.exact, result.partial, result.failure) == (exact, partial, None)


def test_a_lost_worker_costs_its_own_answer_and_no_other(scorer):
    """Loops in Python and in C are killed within their time, a dead process is replaced, the rest of the chunk is scored."""
    answers = ["value 1", "loop", "value 0.5", "die", "power", "value 0.25"] * 2
    results = scorer([PROBLEM] * len(answers), [of(a) for a in answers])
    assert [(r.partial, r.failure) for r in results] == [
        (1, None),
        (0, "timeout"),
        (0.5, None),
        (0, "killed_its_process"),
        (0, "timeout"),
        (0.25, None),
    ] * 2
    (again,) = scorer([PROBLEM], [of("value 1")])
    assert again.exact == 1


def test_the_same_answer_to_the_same_problem_is_scored_once(scorer):
    """The scorer's value here differs from call to call."""
    other = Problem("t", 1, "another", PROBLEM.entry)
    first, second, third = scorer([PROBLEM, PROBLEM, other], [of("asked")] * 3)
    assert first == second
    assert first != third


def test_what_was_begun_ahead_is_scored_once_and_forgotten_after_the_call(scorer):
    for _ in range(40):
        scorer.begin(PROBLEM, of("asked"))
    first, again = scorer([PROBLEM] * 2, [of("asked")] * 2)
    (later,) = scorer([PROBLEM], [of("asked")])
    assert first == again != later


def test_answers_are_scored_by_the_tasks_own_configuration():
    mixture = TaskMixture({"chain_sum": TaskSpec(), "number_sorting": TaskSpec(config={"max_numbers": 5})})
    problems = [task.problem(5, 0) for task in mixture.tasks.values()]
    right = [of(p.entry["answer"]) for p in problems]
    scorer = Scorer(mixture)
    assert [s.exact for s in scorer(problems, right)] == [1, 1]
    assert [s.exact for s in scorer(problems, ["<answer>nonsense</answer>"] * 2)] == [0, 0]
    scorer.close()


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), RecursionError(), MemoryError(), GeneratorExit()])
def test_whatever_upstream_raises_is_named(monkeypatch, error):
    mixture = TaskMixture({"chain_sum": TaskSpec()})

    def score(answer, entry):
        raise error

    monkeypatch.setattr(mixture.tasks["chain_sum"], "score", score)
    assert mixture.scores([(Problem("chain_sum", 0, "q", {}), "1")]) == [f"raised_{type(error).__name__}"]


def test_rewards_are_weighted_and_a_users_own_is_a_subclass():
    problem, result = Problem("t", 0, "q", {}), Score(1.0, 0.5, True, "1")
    assert WeightedReward(2.0, 0.5, 0.25)(problem, "", result) == 2.0 + 0.25 + 0.25

    class Brief(Reward):
        def __call__(self, problem, completion, score):
            return score.exact - 0.001 * len(completion)

    assert Brief()(problem, "x" * 100, result) == pytest.approx(0.9)


def test_the_same_question_at_two_levels_is_scored_by_each(scorer):
    """The scorer's value here differs from call to call."""
    easy, hard = replace(PROBLEM, level=0), replace(PROBLEM, level=1)
    first, second, again = scorer([easy, hard, easy], [of("asked")] * 3)
    assert first == again != second
