"""Up, down or stay; and who gets the prompts."""

from __future__ import annotations

import pytest

from rl_lightning.curriculum.config import Curriculum
from rl_lightning.curriculum.step_rule import GUARANTEED_SHARE, next_level, progress_weights
from rl_lightning.types import UserError

FOUR = Curriculum(low=0.25, high=0.75, window=4)


@pytest.mark.parametrize(
    ("successes", "after"),
    [
        ([1, 1, 1, 1], 3),
        ([1, 1, 1, 0.25], 3),  # 0.8125
        ([1, 1, 1, 0], 2),  # 0.75 is in the band
        ([0, 0, 0, 1], 2),  # 0.25 too
        ([0, 0, 0, 0.75], 1),
        ([0, 0, 0], 2),  # too few groups to tell
        ([0, 0, 0, 0, 1, 1, 1, 1], 3),  # only the last four count
        ([], 2),
    ],
)
def test_a_level_moves_when_success_leaves_the_band(successes, after):
    assert next_level(2, 5, successes, FOUR) == after


def test_the_lowest_and_the_highest_level_hold():
    assert next_level(5, 5, [1] * 4, FOUR) == 5
    assert next_level(0, 5, [0] * 4, FOUR) == 0


def test_weights_follow_what_moves_and_leave_everybody_half_of_its_share():
    weights = progress_weights({"a": 2.0, "b": 1.0, "c": 1.0}, {"a": 0.1, "b": 0.4})
    # moving: a 0.2, b 0.4 of 0.6
    assert weights == pytest.approx({"a": 0.25 + 0.5 / 3, "b": 0.125 + 1 / 3, "c": 0.125})
    assert min(weights["c"] / 0.25, weights["a"] / 0.5) >= GUARANTEED_SHARE


def test_where_nothing_moves_the_given_weights_hold():
    assert progress_weights({"a": 3.0, "b": 1.0}, {"a": 0.0}) == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"low": 0.7, "high": 0.7}, r"data.curriculum.low: 0.7 is not allowed; .*below high \(0.7\)"),
        ({"low": -0.1}, "data.curriculum.low"),
        ({"high": 1.0}, "data.curriculum.high: 1.0 is not allowed; it must be above 0 and below 1"),
        ({"window": 0}, "data.curriculum.window"),
        ({"start": -1}, "data.curriculum.start"),
        ({"rehearsal": 1.0}, "data.curriculum.rehearsal"),
        ({"low": float("nan")}, "data.curriculum.low"),
    ],
)
def test_settings_out_of_range_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        Curriculum(**settings).check()
