"""Metrics of the groups, worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from rl_lightning.callbacks.group_variance import GroupVariance, group_statistics
from rl_lightning.types import Score


def test_groups_have_variance_or_are_all_right_or_all_wrong():
    def score(exact, answer):
        return Score(exact, exact, True, answer)

    groups = [
        [score(1.0, "4"), score(0.0, "5"), score(0.0, None)],  # they differ
        [score(1.0, "4"), score(1.0, "4"), score(1.0, "4")],  # all right
        [score(0.0, "5"), score(0.0, "6"), score(0.0, "5")],  # all wrong
        [score(0.0, "5"), score(0.0, "6"), score(1.0, "7")],  # by their format too
    ]
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.1, 1.1, 1.1], [0.0, 0.0, 0.0], [0.1, 0.0, 1.0]])
    statistics = group_statistics(rewards, groups)
    assert statistics["with_variance"] == 0.5
    assert statistics["zero_variance_right"] == statistics["zero_variance_wrong"] == 0.25
    assert statistics["distinct_answers"] == (3 + 1 + 2 + 3) / 4
    assert math.isclose(statistics["reward_std"], float(rewards.std(dim=1).mean()), rel_tol=1e-6)


def test_tokens_are_useful_that_were_trained_on():
    """Of two groups of 2 x 3 tokens the second was not kept; in the first a row was not forwarded and a token does not count."""
    lengths = torch.full((4,), 3)
    rollout = SimpleNamespace(group_size=2, lengths=lengths)
    problems = [SimpleNamespace(task="a"), SimpleNamespace(task="b")]
    rewards = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    scores = [Score(1.0, 1.0, True, "x"), Score(0.0, 0.0, True, "y")] * 2
    prompts = SimpleNamespace(problems=problems)
    kept = torch.tensor([True, False])
    rollouts = SimpleNamespace(rollout=rollout, scores=scores, rewards=rewards, prompts=prompts, kept=kept)
    weights = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0] * 3, [0.0] * 3])
    logps = torch.zeros(4, 3)
    logps[1] = torch.nan
    trainer, seconds = SimpleNamespace(logps=logps), {"sample": 6.0}
    of = {"advantages": torch.ones(2, 2), "seconds": seconds, "supervised": False}
    record = SimpleNamespace(rollouts=rollouts, weights=weights, trainer_logprobs=trainer, **of)
    metrics = GroupVariance().step_metrics(None, None, record)
    assert metrics["groups/useful_tokens"] == pytest.approx(2 / 12)
    assert metrics["time/wasted"] == pytest.approx(5.0)
    assert metrics["groups/a/useful_tokens"] == pytest.approx(2 / 6)
    assert metrics["time/wasted/b"] == pytest.approx(3.0)
    assert metrics["groups/sampled"] == 2
    assert metrics["groups/kept"] == 1
    assert "sft/samples" not in metrics
    record.supervised = True
    assert GroupVariance().step_metrics(None, None, record)["sft/samples"] == 4
