"""A suite is what its metrics depend on, and says what differs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rl_lightning.evaluation.difficulty import levels
from rl_lightning.evaluation.eval_sampling import EvalSampling, problem_draws
from rl_lightning.evaluation.suite import differences, make_suite, store_suite, stored_suite
from rl_lightning.types import Problem, UserError


def problem(index, task="chain_sum", answer="4", terms=2):
    return Problem(f"{task} {index}?", expected=answer, difficulty={"terms": terms}, task=task, index=index)


PROBLEMS = (problem(1, terms=3), problem(0), problem(0, "spell_backward"))
CONFIGS = {"chain_sum": {"max_terms": 9}, "spell_backward": {}}


def suite(problems=PROBLEMS, length=64, prompt="", draws=None, seed=0, configs=CONFIGS, **written):
    return make_suite(problems, length, prompt, draws, seed, configs, written)


def test_problems_are_sorted_with_answers_and_levels():
    found = [(p["task"], p["index"], p["expected"], p["level"]) for p in suite().problems]
    assert found == [
        ("chain_sum", 0, "4", {"terms": 2}),
        ("chain_sum", 1, "4", {"terms": 3}),
        ("spell_backward", 0, "4", {"terms": 2}),
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (suite(length=72), ["max_new_tokens was 64 and is 72"]),
        (suite(prompt="Think."), ["the system prompt differs"]),
        (suite(answer_format="boxed"), ["data.answer_format was not set and is boxed"]),
        (suite(draws=EvalSampling(4, 0.8)), ["decoding was greedy and is samples 4, temperature 0.8"]),
        (suite(PROBLEMS[1:]), ["chain_sum had 2 problems and has 1"]),
        (suite(PROBLEMS[:2], configs={"chain_sum": {"max_terms": 9}}), ["spell_backward was left out"]),
        (
            suite((problem(7), problem(8), PROBLEMS[2]), configs={**CONFIGS, "chain_sum": {"max_terms": 4}}, seed=1),
            ["eval_seed was 0 and is 1", "chain_sum.config.max_terms was 9 and is 4"],
        ),
        (
            suite((problem(1, answer="5"), *PROBLEMS[1:])),
            [
                "the tasks' problems or expected answers differ, for instance because of another version of reasoning-gym"
            ],
        ),
    ],
)
def test_what_differs_is_said(other, said):
    assert differences(suite(), other) == said


def test_the_same_questions_are_the_same_suite():
    """A default that is spelled out changes nothing."""
    spelled = suite(tuple(reversed(PROBLEMS)), configs={**CONFIGS, "spell_backward": {"min_word_len": 3}})
    assert spelled.hash == suite().hash
    assert differences(suite(), spelled) == []


def test_a_stored_suite_comes_back_and_is_never_written_over(tmp_path):
    store_suite(suite(), tmp_path)
    before = (tmp_path / "suite.json").read_bytes()
    store_suite(suite(), tmp_path)
    store_suite(suite(length=9), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["suite.json", "suite_2.json"]
    assert (tmp_path / "suite.json").read_bytes() == before
    assert stored_suite(tmp_path, suite().hash) == suite()
    assert stored_suite(tmp_path, suite(length=9).hash) == suite(length=9)
    assert stored_suite(tmp_path, "another") is None
    (tmp_path / "suite_2.json").write_text("{}")
    with pytest.raises(UserError, match="suite_2.json: not a suite of rl_lightning"):
        stored_suite(tmp_path, "another")


def test_a_problems_draws_are_its_own():
    alone, together = problem_draws(PROBLEMS[1:2], 3, 8), problem_draws(PROBLEMS, 3, 8)
    assert (alone == together[3:6]).all()
    assert together.unique().numel() == 9 * 8
    assert (together >= 0).all()
    assert (together < 1).all()
    assert (problem_draws((replace(PROBLEMS[1], index=99),), 3, 8) == alone).all()


def test_levels_are_the_problems_own_values():
    assert levels([{"a": 2, "c": 7}, {"a": 3, "c": 7}, {"a": 2, "c": 7}]) == {"a 2": [0, 2], "a 3": [1]}
    assert levels([{}, {}]) == {}


def test_many_values_are_joined_to_a_few_ranges_of_about_as_many_problems():
    found = levels([{"n": value} for value in range(1, 21)])
    assert max(map(len, found.values())) <= 8
    assert len(found) == 4
    assert sorted(place for places in found.values() for place in places) == list(range(20))
    assert next(iter(found)).startswith("n 1-")


def test_the_levels_of_a_curriculum_come_first_and_are_never_joined():
    problems = tuple(replace(problem(index, terms=index + 2), level=index // 2) for index in range(14))
    asked = suite(problems)
    assert asked.hash == suite(tuple(replace(p, level=None) for p in problems)).hash  # it is no part of the question
    found = levels([p["level"] for p in asked.problems])
    assert list(found)[:7] == [f"level {number}" for number in range(7)]
    assert found["level 3"] == [6, 7]
    assert list(found)[7].startswith("terms 2-")
