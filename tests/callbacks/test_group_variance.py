"""Figures of the groups, worked out by hand."""

from __future__ import annotations

import math

import torch

from rl_lightning.callbacks.group_variance import group_statistics
from rl_lightning.types import Score


def test_groups_are_diverse_or_dead_right_or_dead_wrong():
    def score(exact, answer):
        return Score(exact, exact, True, answer)

    groups = [
        [score(1.0, "4"), score(0.0, "5"), score(0.0, None)],  # diverse
        [score(1.0, "4"), score(1.0, "4"), score(1.0, "4")],  # all right
        [score(0.0, "5"), score(0.0, "6"), score(0.0, "5")],  # all wrong
        [score(0.0, "5"), score(0.0, "6"), score(1.0, "7")],  # diverse by format too
    ]
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.1, 1.1, 1.1], [0.0, 0.0, 0.0], [0.1, 0.0, 1.0]])
    statistics = group_statistics(rewards, groups)
    assert statistics["diverse"] == 0.5
    assert statistics["dead_right"] == statistics["dead_wrong"] == 0.25
    assert statistics["distinct_answers"] == (3 + 1 + 2 + 3) / 4
    assert math.isclose(statistics["reward_std"], float(rewards.std(dim=1).mean()), rel_tol=1e-6)
