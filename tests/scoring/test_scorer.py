from __future__ import annotations

import pytest

from rl_lightning.scoring import Reward, Scorer, WeightedReward
from rl_lightning.tasks.stream import TaskMixture, TaskSpec
from rl_lightning.types import Problem, Score


class Mixture:
    """A mixture whose scorer does what the test wants, and remembers that it was asked."""

    def __init__(self, outcome):
        self.outcome, self.asked = outcome, 0

    def score(self, problem, answer):
        self.asked += 1
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def score(outcome, text="<think></think><answer>1</answer>"):
    mixture = Mixture(outcome)
    return Scorer(mixture)([Problem("t", 0, "q", {})], [text])[0], mixture.asked


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), RecursionError(), MemoryError(), GeneratorExit()])
def test_whatever_a_scorer_raises_is_zero_and_named(error):
    result, _ = score(error)
    assert (result.exact, result.partial, result.failure) == (0, 0, f"raised_{type(error).__name__}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_scores_that_are_not_finite_are_zero(value):
    result, _ = score(value)
    assert (result.exact, result.partial, result.failure) == (0, 0, "not_finite")


@pytest.mark.parametrize("text", ["", "42", "<answer></answer>", "<answer>  </answer>", "<answer>42"])
def test_no_answer_is_zero_and_the_scorer_is_not_asked(text):
    result, asked = score(1.0, text)
    assert (result.exact, result.partial, result.failure, asked) == (0, 0, "no_answer", 0)


@pytest.mark.parametrize(
    ("value", "exact", "partial"), [(1.0, 1, 1), (0.99, 0, 0.99), (7, 1, 1), (-3, 0, 0), (True, 1, 1)]
)
def test_exact_is_full_marks_and_partial_is_clamped(value, exact, partial):
    result, _ = score(value)
    assert (result.exact, result.partial, result.failure) == (exact, partial, None)


def test_answers_are_scored_by_the_tasks_own_configuration():
    mixture = TaskMixture({"chain_sum": TaskSpec(), "number_sorting": TaskSpec(config={"max_numbers": 5})})
    problems = [task.problem(5, 0) for task in mixture.tasks.values()]
    right = [f"<think></think><answer>{p.entry['answer']}</answer>" for p in problems]
    assert [s.exact for s in Scorer(mixture)(problems, right)] == [1, 1]
    assert [s.exact for s in Scorer(mixture)(problems, ["<answer>nonsense</answer>"] * 2)] == [0, 0]


def test_rewards_are_weighted_and_a_users_own_is_a_subclass():
    problem, result = Problem("t", 0, "q", {}), Score(1.0, 0.5, True, "1")
    assert WeightedReward(2.0, 0.5, 0.25)(problem, "", result) == 2.0 + 0.25 + 0.25

    class Brief(Reward):
        def __call__(self, problem, completion, score):
            return score.exact - 0.001 * len(completion)

    assert Brief()(problem, "x" * 100, result) == pytest.approx(0.9)
