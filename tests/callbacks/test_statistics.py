"""Figures of the evaluation and of the groups, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from rl_lightning.callbacks.fixed_eval import _baseline, _summary
from rl_lightning.callbacks.group_variance import group_statistics
from rl_lightning.types import Score, UserError


def row(index, exact, tokens=10, truncated=False, partial=None):
    return {
        "task": "t",
        "index": index,
        "exact": exact,
        "partial": exact if partial is None else partial,
        "tokens": tokens,
        "truncated": truncated,
    }


def test_summary_of_four_problems():
    rows = [row(0, 1.0, 8), row(1, 0.0, 12, True, 0.5), row(2, 1.0), row(3, 1.0)]
    summary = _summary(rows, None)
    assert summary["n"] == 4
    assert (summary["accuracy"], summary["mean_score"], summary["mean_tokens"], summary["truncated"]) == (
        0.75,
        0.875,
        10,
        0.25,
    )
    assert math.isclose(summary["standard_error"], math.sqrt(0.75 * 0.25 / 4))
    assert "gain" not in summary


def test_the_gain_is_paired():
    """Gains 1, 0, 0, -1, 1 by problem: mean 0.2, sample standard deviation sqrt(0.7)."""
    before = {("t", i): value for i, value in enumerate([0.0, 1.0, 0.0, 1.0, 0.0])}
    rows = [row(i, value) for i, value in enumerate([1.0, 1.0, 0.0, 0.0, 1.0])]
    gain = _summary(rows, before)["gain"]
    half = 1.96 * math.sqrt(0.7) / math.sqrt(5)
    assert math.isclose(gain["mean"], 0.2)
    assert math.isclose(gain["low"], 0.2 - half)
    assert math.isclose(gain["high"], 0.2 + half)


def test_a_baseline_of_another_suite_is_not_compared_with(tmp_path):
    path = tmp_path / "eval_step_0.json"
    assert _baseline(path, "a") is None
    path.write_text('{"suite": "a", "rows": [{"task": "t", "index": 0, "exact": 1.0}]}')
    assert _baseline(path, "a") == {("t", 0): 1.0}
    assert _baseline(path, "b") is None
    path.write_text("{")
    with pytest.raises(UserError, match="not an evaluation of rl_lightning"):
        _baseline(path, "a")


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
