"""Rewards of users: functions, batches, coroutines, None, and what is wrong with them, in one line."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rl_lightning.checkpointing.resume import settings
from rl_lightning.objective import Objective
from rl_lightning.scoring import BatchReward, Reward, as_reward, group_components, reward_components
from rl_lightning.types import Problem, Score, UserError

PROBLEMS = [Problem(f"question {n}", "1", task="sums", index=n) for n in range(4)]
TEXTS = ["a", "bb", "ccc", "dddd"]
SCORES = [Score(float(n % 2), 0.5, True, "1") for n in range(4)]


def rewards(reward) -> list[float]:
    return reward_components(as_reward(reward), False, PROBLEMS, TEXTS, SCORES).flatten().tolist()


def test_a_function_is_given_what_its_parameters_are_named_for():
    assert rewards(lambda completion: len(completion)) == [1, 2, 3, 4]
    assert rewards(lambda score, problem, scale=10: scale * problem.index + score.exact) == [0, 11, 20, 31]
    assert rewards(lambda completion, **others: sorted(others) == ["problem", "score"]) == [1, 1, 1, 1]
    assert rewards(
        lambda completions, scores: [len(c) - s.exact for c, s in zip(completions, scores, strict=True)]
    ) == [1, 1, 3, 3]
    assert rewards(lambda completions: torch.arange(4)) == [0, 1, 2, 3]
    assert rewards(lambda score: np.float32(score.partial)) == [0.5] * 4
    assert rewards(lambda score: np.bool_(score.exact)) == [0, 1, 0, 1]
    assert rewards(partial(lambda scale, score: scale * score.exact, 3)) == [0, 3, 0, 3]


class Scaled:
    """A callable that is no Reward."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, score):
        return self.scale * score.exact


def test_what_is_called_is_known_by_its_settings():
    assert rewards(Scaled(2.0)) == [0, 2, 0, 2]
    one, two = (settings(reward=as_reward(Scaled(scale))) for scale in (1.0, 2.0))
    assert one != two
    one, two = (settings(reward=as_reward(partial(lambda k, score: k, k))) for k in (1, 2))
    assert one != two


def test_components_may_be_an_array():
    class Two(Reward):
        weights = (1.0, 0.5)

        def components(self, problem, completion, score):
            return np.array([score.exact, score.partial])

        def __call__(self, problem, completion, score):
            raise AssertionError("the components are asked")

    assert reward_components(Two(), True, PROBLEMS, TEXTS, SCORES).tolist() == [[n % 2, 0.5] for n in range(4)]


def test_a_batch_is_one_call_and_coroutines_wait_together():
    calls = []

    class Batch(BatchReward):
        async def of_all(self, problems, completions, scores):
            calls.append(len(problems))
            return [score.exact for score in scores]

    assert rewards(Batch()) == [0, 1, 0, 1]
    assert calls == [4]
    assert asyncio.run(Batch()(PROBLEMS[1], "", SCORES[1])) == 1
    here, together = 0, []

    async def asks(score):
        nonlocal here
        here += 1
        together.append(here)
        await asyncio.sleep(0.01)
        here -= 1
        return score.exact

    assert rewards(asks) == [0, 1, 0, 1]
    assert max(together) == 4  # all were asked before the first had answered

    async def in_a_notebook():
        return rewards(asks)

    assert asyncio.run(in_a_notebook()) == [0, 1, 0, 1]  # a loop runs already


def grouped(reward, group_size: int, objective: Objective = Objective()) -> torch.Tensor:  # noqa: B008
    rollout = SimpleNamespace(texts=TEXTS, group_size=group_size)
    return group_components(as_reward(reward), objective, PROBLEMS, rollout, SCORES)


@pytest.mark.parametrize("settings", [{"baseline": "batch", "scale_advantages": "none"}, {"scale_advantages": "batch"}])
def test_none_is_refused_where_groups_are_compared_with_one_another(settings):
    with pytest.raises(UserError, match="gave None, which is nothing that groups can be compared by; set"):
        grouped(lambda problem: None if problem.index else 1.0, 2, Objective(**settings))
    assert grouped(lambda problem: 1.0, 2, Objective(**settings)).tolist() == [[[1.0], [1.0]]] * 2


def test_none_is_the_average_of_the_others_of_its_group():
    values = iter([1.0, None, 3.0, None])
    found = grouped(lambda problem: next(values), 4)
    assert found.tolist() == [[[1.0], [2.0], [3.0], [2.0]]]
    values = iter([None, None, 3.0, 1.0])
    found = grouped(lambda problem: next(values), 2)
    assert found.flatten().tolist() == [0, 0, 3, 1]


def test_a_component_may_not_apply():
    class Two(Reward):
        weights = (1.0, 0.5)

        def components(self, problem, completion, score):
            return score.exact, None if problem.index else 1.0

        def __call__(self, problem, completion, score):
            raise AssertionError("the components are asked")

    found = grouped(Two(), 4, Objective(reward_aggregation="normalize_then_sum"))
    assert found[0].tolist() == [[0, 1], [1, 1], [0, 1], [1, 1]]


async def refused(completion):
    raise ConnectionError("the server said 500\nand more")


async def ends(completion):
    raise SystemExit("no key")


async def refuses(completion):
    raise UserError("nothing can be asked")


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (
            lambda completion: "1",
            r"gave '1' \(str\); it must be a finite number, or None; task sums, problem 0 \('question 0'\)",
        ),
        (lambda completion: {}["x"], r"raised KeyError: 'x' \(.*test_own_rewards.py, line \d+\); task sums, problem 0"),
        (
            lambda problem: 1 / (2 - problem.index),
            r"raised ZeroDivisionError.*; task sums, problem 2 .*completion 'ccc'",
        ),
        (refused, r"test_own_rewards.refused raised ConnectionError: the server said 500 \(.*problem 0"),
        (lambda score: float("inf"), r"gave inf \(float\); it must be a finite number, or None; task sums, problem 0"),
        (lambda completion: [1.0], r"gave \[1.0\] \(list\); it must be a finite number"),
        (lambda completion: 2 ** (2000 * len(completion)), r"gave \S+ \(int\); it must be a finite number"),
        (lambda completion: torch.ones(2), r"gave tensor.* \(Tensor\); it must be a finite number"),
        (partial(lambda scale, score: score.exact / scale, 0), r"<lambda>\(0\) raised ZeroDivisionError"),
        (ends, "test_own_rewards.ends raised SystemExit: no key"),
        (refuses, "^nothing can be asked$"),
        (lambda completions: [1.0], "gave 1 rewards of 4 completions"),
        (lambda completions: 1.0, "raised TypeError: 'float' object is not iterable"),
        (lambda completions: {}["x"], r"raised KeyError: 'x' \(.*test_own_rewards.py, line \d+\)$"),
    ],
)
def test_a_wrong_reward_is_one_line_with_its_place_and_completion(reward, message):
    with pytest.raises(UserError, match=message) as caught:
        rewards(reward)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda: 0,
        lambda a: 0,
        lambda completion, other: 0,
        lambda completion, scores: 0,
        lambda *args: 0,
        len,
        max,
        None,
        3,
    ],
)
def test_a_function_with_other_parameters_is_refused(function):
    with pytest.raises(
        UserError, match="a reward function takes any of problem, completion|neither a Reward nor a function"
    ):
        as_reward(function)
