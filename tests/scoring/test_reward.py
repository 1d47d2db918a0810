"""Rewards: weighted, a user's own, and those that cannot be used."""

from __future__ import annotations

import pytest

from rl_lightning.scoring import Reward, WeightedReward, component_weights, reward_components
from rl_lightning.types import Problem, Score, UserError

PROBLEM = Problem("q", "1", task="t")
SCORE = Score(1.0, 0.5, True, "1")


def test_rewards_are_weighted_and_a_users_own_is_a_subclass():
    assert WeightedReward(2.0, 0.5, 0.25)(PROBLEM, "", SCORE) == 2.0 + 0.25 + 0.25

    class Brief(Reward):
        def __call__(self, problem, completion, score):
            return score.exact - 0.001 * len(completion)

    assert Brief()(PROBLEM, "x" * 100, SCORE) == pytest.approx(0.9)
    found = reward_components(Brief(), True, [PROBLEM], ["x" * 100], [SCORE])  # the sum is its only component
    assert found.tolist() == [[pytest.approx(0.9)]]


def test_the_format_is_graded_strictly_or_by_degrees():
    half = Score(0.0, 0.0, False, "1", format=0.5)
    for grading, expected in (("strict", 0.0), ("degrees", 0.1)):
        reward = WeightedReward(format=0.2, format_grading=grading)
        assert reward(PROBLEM, "", half) == pytest.approx(expected)
        assert (
            reward_components(reward, True, [PROBLEM], [""], [half]) @ component_weights(reward, True)
        ).tolist() == [pytest.approx(expected)]
    with pytest.raises(
        UserError, match=r"model.reward.format_grading: 'half' is not allowed; it must be strict or degrees"
    ):
        WeightedReward(format_grading="half")


@pytest.mark.parametrize(("separate", "expected"), [(True, [[1.0, 0.5, 1.0]]), (False, [[2.5]])])
def test_the_weighted_components_are_the_reward(separate, expected):
    reward = WeightedReward(2.0, 0.5, 0.25)
    found = reward_components(reward, separate, [PROBLEM], ["x"], [SCORE])
    assert found.tolist() == expected
    assert (found @ component_weights(reward, separate)).tolist() == [2.5]


@pytest.mark.parametrize(
    ("weights", "components", "message"),
    [
        ((1.0,), (1.0, 0.0), "Odd gave 2 components and has 1 weights"),
        ((1.0, float("nan")), (1.0, 0.0), "not a finite number"),
        (
            (1.0, 1.0),
            (1e39, 0.0),
            "gave 1e\\+39 .float.; it must be a finite number",
        ),  # of float32, in which rewards are compared
    ],
)
def test_components_that_do_not_fit_are_one_line(weights, components, message):
    class Odd(WeightedReward):
        @property
        def weights(self):
            return weights

        def components(self, problem, completion, score):
            return components

    with pytest.raises(UserError, match=message) as caught:
        reward_components(Odd(), True, [PROBLEM] * 2, ["x"] * 2, [SCORE] * 2)
    assert "\n" not in str(caught.value)
