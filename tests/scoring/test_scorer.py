"""The scorer: whatever a verifier does costs its own answer and no other."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from rl_lightning.environments.answer_formats import answer_format
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.scoring import Scorer
from rl_lightning.types import Problem

PROBLEM = Problem("q", "1", task="t")


class Odd:
    """A mixture whose verifier does what the answer says."""

    def refuse(self, problem, answer):
        return "too_long" if answer == "refuse" else None

    def verify_all(self, answered):
        return [self.verify(answer) for _, answer in answered]

    def verify(self, answer):
        word, _, value = answer.partition(" ")
        if word == "loop":
            while True:
                pass
        if word == "power":
            return float(len(str(9**9**9)))
        if word == "die":
            os._exit(3)
        if word == "clock":
            return float(os.getpid() % 7 + time.monotonic_ns() % 1_000_000) / 1e9
        if word == "process":
            time.sleep(0.1)
            return os.getpid() / 1e9
        return float(value) if word == "value" else word


@pytest.fixture(scope="module")
def scorer():
    scorer = Scorer(Odd(), workers=2, seconds=0.5)
    yield scorer
    scorer.close()


def of(answer: str) -> str:
    return f"<think></think><answer>{answer}</answer>"


def test_what_a_verifier_names_is_zero_and_named(scorer):
    (result,) = scorer([PROBLEM], [of("raised_SystemExit")])
    assert (result.exact, result.partial, result.failure) == (0, 0, "raised_SystemExit")


def test_an_answer_that_its_environment_refuses_is_zero_named_and_never_verified(scorer):
    """The verifier here would name it after the answer."""
    (result,) = scorer([PROBLEM], [of("refuse")])
    assert (result.exact, result.partial, result.answer, result.failure) == (0, 0, "refuse", "refused_too_long")


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


@pytest.mark.parametrize(
    ("text", "well_formed", "degree"),
    [("<think>x</think><answer>value 0</answer>", True, 1), ("<answer>value 0</answer>", False, 0.5), ("0", False, 0)],
)
def test_the_format_is_scored_whatever_the_answer_is(scorer, text, well_formed, degree):
    (result,) = scorer([PROBLEM], [text])
    assert (result.exact, result.well_formed, result.format) == (0, well_formed, degree)


def test_answers_are_read_in_the_format_that_is_set():
    scorer = Scorer(Odd(), workers=1, seconds=0.5, answers=answer_format("boxed"))
    boxed, tagged = scorer([PROBLEM] * 2, [r"\boxed{value 1}", of("value 1")])
    scorer.close()
    assert (boxed.exact, boxed.answer, boxed.well_formed, boxed.format) == (1, "value 1", True, 1)
    assert (tagged.exact, tagged.answer, tagged.failure, tagged.format) == (0, None, "no_answer", 0)


def test_answers_without_a_completion_are_scored(scorer):
    right, none, refused = scorer.score_answers([PROBLEM] * 3, ["value 1", "", "refuse"])
    assert (right.exact, none.failure, refused.failure) == (1, "no_answer", "refused_too_long")


def test_a_dressed_answer_to_a_task_that_refuses_its_dress_is_right():
    mixture = EnvironmentMixture({"power_function": TaskSpec()})
    problem = mixture.problem("power_function", 5, 0)
    scorer = Scorer(mixture, workers=1)
    texts = [of(dress.format(problem.expected)) for dress in ("**{}**", "{} or 7", "**7**")]
    dressed, two, wrong = scorer([problem] * 3, texts)
    scorer.close()
    assert (dressed.exact, dressed.failure) == (1, None)
    assert (two.failure, wrong.failure) == ("refused_not_a_number", "refused_wrong_numbers")


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


def test_the_time_limit_is_an_answers_however_many_are_sent_at_once():
    """Twenty honest answers take four times the limit of one, and cost no worker."""
    scorer = Scorer(Odd(), workers=1, seconds=0.5)
    (before,) = scorer([PROBLEM], [of("process")])
    results = scorer([PROBLEM] * 20, [of(f"process {number}") for number in range(20)])
    scorer.close()
    assert {(score.partial, score.failure) for score in results} == {(before.partial, None)}


def test_the_same_answer_to_the_same_problem_is_verified_once(scorer):
    """The verifier's value here differs from call to call."""
    other = replace(PROBLEM, question="another", index=1)
    first, second, third = scorer([PROBLEM, PROBLEM, other], [of("clock")] * 3)
    assert first == second
    assert first != third


def test_what_was_begun_ahead_is_verified_once_and_forgotten_after_the_call(scorer):
    for _ in range(40):
        scorer.submit(PROBLEM, of("clock"))
    first, again = scorer([PROBLEM] * 2, [of("clock")] * 2)
    (later,) = scorer([PROBLEM], [of("clock")])
    assert first == again != later


def test_the_same_question_at_two_levels_is_verified_by_each(scorer):
    """The verifier's value here differs from call to call."""
    easy, hard = replace(PROBLEM, level=0), replace(PROBLEM, level=1)
    first, second, again = scorer([easy, hard, easy], [of("clock")] * 3)
    assert first == again != second


def test_answers_are_verified_by_the_tasks_own_configuration():
    mixture = EnvironmentMixture({"chain_sum": TaskSpec(), "number_sorting": TaskSpec(config={"max_numbers": 5})})
    problems = [mixture.problem(name, 5, 0) for name in mixture.tasks]
    right = [of(p.expected) for p in problems]
    scorer = Scorer(mixture)
    assert [s.exact for s in scorer(problems, right)] == [1, 1]
    assert [s.exact for s in scorer(problems, ["<answer>nonsense</answer>"] * 2)] == [0, 0]
    scorer.close()


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), RecursionError(), MemoryError(), GeneratorExit()])
def test_whatever_a_verifier_raises_is_named(monkeypatch, error):
    mixture = EnvironmentMixture({"chain_sum": TaskSpec()})

    def verify(problem, answer):
        raise error

    monkeypatch.setattr(mixture.tasks["chain_sum"], "verify", verify)
    assert mixture.verify_all([(Problem("q", task="chain_sum"), "1")]) == [f"raised_{type(error).__name__}"]
