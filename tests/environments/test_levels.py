"""Levels of difficulty: where they come from, and that none is used that was not tried."""

from __future__ import annotations

import pytest
from reasoning_gym.factory import DATASETS

from rl_lightning.environments.levels import LevelTrial, check_levels, left_out, usable
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.reasoning_gym.curricula import curriculum_levels
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask, config_defaults, task_names
from rl_lightning.environments.stream import eval_problems
from rl_lightning.types import UserError
from tests.environments.endless_task import Endless

SUM = {"min_terms": 2, "max_terms": 2, "min_digits": 1}


def tried(task: ReasoningGymTask, levels=(), seconds=20.0, **kwargs):
    return check_levels({task.name: task}, {task.name: task.levels(levels)}, seconds, **kwargs)[task.name]


@pytest.mark.parametrize("name", task_names())
def test_every_task_has_several_levels_or_none(name):
    """Attributes set real config keys, at as many levels as the longest attribute has."""
    found = curriculum_levels(name)
    assert len(found) != 1
    for level in found:
        assert set(level) <= set(config_defaults(name))
        assert set(level) == set(found[0])


def test_an_attribute_stays_at_its_last_value_and_a_range_gets_its_own_segment():
    found = curriculum_levels("chain_sum")
    assert [(c["min_terms"], c["max_terms"]) for c in found] == [(n, n) for n in range(2, 13)]
    assert [c["max_digits"] for c in found] == [*range(1, 11), 10]
    values = [(c["min_value"], c["max_value"]) for c in curriculum_levels("base_conversion")]
    assert values == [(1_000, 10_000), (10_000, 100_000), *[(100_000, 1_000_000)] * 3]


def test_the_config_wins_over_the_curriculum_and_the_users_levels_over_the_config():
    task = ReasoningGymTask("chain_sum", {"max_digits": 3, "allow_negation": True})
    assert all(level["max_digits"] == 3 and level["allow_negation"] for level in task.levels([]))
    mine = task.levels([{"max_terms": 3}, {"max_terms": 4, "max_digits": 5}])
    assert mine == [
        {"max_digits": 3, "allow_negation": True, "max_terms": 3},
        {"max_digits": 5, "allow_negation": True, "max_terms": 4},
    ]


def test_levels_that_cannot_be_used_are_left_out_and_named():
    """The time limit is a thousand times what the others need."""
    levels = [
        {**SUM, "max_digits": 2},
        {**SUM, "max_digits": 2},  # the same
        {**SUM, "max_digits": 3},
        {**SUM, "max_digits": 0},  # refused
        {**SUM, "min_terms": 1000, "max_terms": 1000},  # takes for ever
        {**SUM, "max_digits": 4, "max_terms": 30, "min_terms": 30},  # long
        {"min_terms": 1, "max_terms": 1, "min_digits": 40, "max_digits": 40},
    ]
    checks = tried(Endless("chain_sum", {}), levels, seconds=3, fits=lambda task, question: len(question) < 150)
    assert [check.wrong is None for check in checks] == [True, False, True, False, False, False, True]
    line = left_out("chain_sum", checks)
    assert line.startswith("datasets.chain_sum: 3 of 7 levels; left out: 1 (the same as the level before), 3 (refused")
    assert "4 (8 problems take longer than 3 s)" in line
    assert "5 (only 0 of 8 prompts are within max_prompt_tokens)" in line
    assert "\n" not in line
    assert usable(checks) == tuple(levels[number] for number in (0, 2, 6))


def test_a_level_of_hardly_any_problems_is_left_out():
    checks = tried(ReasoningGymTask("count_bits", {}), [{"min_n": 1, "max_n": 2}, {"min_n": 1000, "max_n": 2000}])
    assert checks[0].wrong == "only 2 of 8 problems are different"
    assert usable(checks) == ()  # one level leaves nothing to choose
    assert left_out("count_bits", checks).endswith("it stays at its config")


def test_a_task_without_a_curriculum_stays_at_its_config():
    (name, *_) = [name for name in task_names() if not curriculum_levels(name)]
    assert left_out(name, []) == f"datasets.{name}: it has no levels; it stays at its config"
    assert usable([]) == ()


def test_a_generator_that_fails_now_and_then_is_used_and_one_that_fails_mostly_is_not(monkeypatch):
    task = ReasoningGymTask("chain_sum", {})
    trial = LevelTrial({"chain_sum": task})
    dataset = DATASETS["chain_sum"][0]
    item = dataset.__getitem__
    for failing, made in ((3, 5), (4, 0)):
        monkeypatch.setattr(
            dataset, "__getitem__", lambda self, k, n=failing: 1 / 0 if self.seed < n else item(self, k)
        )
        found = trial.draw("chain_sum", {})
        assert len(found) == made if made else found == "its generator fails: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        (
            [{}, {"max_terms": 2}, {"max_term": 3}],
            r"datasets.chain_sum.levels\[2\].max_term: no such key; did you mean max_terms",
        ),
        ([{"seed": 1}], r"datasets.chain_sum.levels\[0\].seed: belongs to the stream"),
    ],
)
def test_a_mistaken_level_is_one_line(levels, said):
    with pytest.raises(UserError, match=said):
        EnvironmentMixture({"chain_sum": TaskSpec(levels=levels)})


def with_levels() -> EnvironmentMixture:
    """Sums of 2, 3 and 4 terms, and a task without levels."""
    mixture = EnvironmentMixture({"chain_sum": TaskSpec(), "spell_backward": TaskSpec()})
    mixture.set_levels({"chain_sum": [{"min_terms": n, "max_terms": n} for n in (2, 3, 4)]})
    return mixture


@pytest.mark.parametrize(("number", "spread"), [(9, [3, 3, 3]), (10, [4, 3, 3]), (2, [1, 1, 0]), (1, [1, 0, 0])])
def test_the_evaluation_is_spread_over_the_levels_from_easy_to_hard(number, spread):
    problems = eval_problems(with_levels(), 0, number)
    sums = [problem for problem in problems if problem.task == "chain_sum"]
    assert [problem.index for problem in sums] == list(range(number))
    assert [problem.level for problem in sums] == sorted(problem.level for problem in sums)
    assert [sum(problem.level == level for problem in sums) for level in range(3)] == spread
    assert all(problem.payload["metadata"]["num_terms"] == problem.level + 2 for problem in sums)
    assert {problem.level for problem in problems if problem.task == "spell_backward"} == {None}


def test_an_answer_is_scored_by_its_levels_config(monkeypatch):
    mixture = with_levels()
    problems = [mixture.problem("chain_sum", 5, 0, level) for level in (0, 2, None)]
    monkeypatch.setattr(DATASETS["chain_sum"][0], "score_answer", lambda self, answer, entry: self.config.max_terms)
    assert mixture.verify_all([(problem, "1") for problem in problems]) == [2, 4, 6]  # 6 is the task's default
