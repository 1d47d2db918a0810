from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_lightning.objective import decoupled_advantages, group_advantages, overlong_penalty


def test_advantages_are_worked_out_by_hand():
    rewards = torch.tensor([[1.0, 0.0], [1.0, 0.5]])
    # row 0: mean 0.5, sample std sqrt(0.5); row 1: mean 0.75, std sqrt(0.125)
    assert torch.allclose(group_advantages(rewards, "none"), torch.tensor([[0.5, -0.5], [0.25, -0.25]]))
    expected = torch.tensor([[0.5, -0.5], [0.25, -0.25]]) / (torch.tensor([[0.5**0.5], [0.125**0.5]]) + 1e-4)
    assert torch.allclose(group_advantages(rewards, "group"), expected)
    batch_std = (((1 - 0.625) ** 2 * 2 + 0.625**2 + 0.125**2) / 3) ** 0.5
    assert torch.allclose(
        group_advantages(rewards, "batch"), torch.tensor([[0.5, -0.5], [0.25, -0.25]]) / (batch_std + 1e-4)
    )


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@given(reward=st.floats(-1e3, 1e3, width=32), size=st.integers(2, 33))
def test_equal_rewards_teach_nothing(scale, reward, size):
    rewards = torch.tensor([[reward] * size, [0.0, 1.0] + [0.5] * (size - 2)])
    assert (group_advantages(rewards, scale)[0] == 0).all()


@given(st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=16))
def test_advantages_of_a_group_sum_to_zero_and_keep_the_order(rewards):
    advantages = group_advantages(torch.tensor([rewards]), "group")[0]
    assert abs(float(advantages.sum())) < 1e-2
    order = sorted(range(len(rewards)), key=lambda i: rewards[i])
    assert all(advantages[a] <= advantages[b] for a, b in pairwise(order))


def test_other_baselines_are_worked_out_by_hand():
    rewards = torch.tensor([[1.0, 0.0, 0.5], [1.0, 1.0, 1.0]])
    rloo = group_advantages(rewards, "none", "leave_one_out")
    assert torch.allclose(rloo, torch.tensor([[0.75, -0.75, 0.0], [0.0, 0.0, 0.0]]))
    std = rewards.std() + 1e-4
    plus_plus = group_advantages(rewards, "batch", "batch")
    assert torch.allclose(plus_plus, torch.tensor([[0.25, -0.75, -0.25], [0.25, 0.25, 0.25]]) / std)
    assert (group_advantages(torch.full((2, 3), 0.1), "batch", "batch") == 0).all()


@given(st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=9))
def test_a_leave_one_out_baseline_is_the_mean_of_the_others(rewards):
    found = group_advantages(torch.tensor([rewards]), "none", "leave_one_out")[0]
    for i, advantage in enumerate(found):
        others = rewards[:i] + rewards[i + 1 :]
        assert abs(float(advantage) - (rewards[i] - sum(others) / len(others))) < 1e-4


def test_the_penalty_for_length_is_worked_out_by_hand():
    lengths = torch.tensor([1, 60, 70, 80, 100])
    assert torch.allclose(overlong_penalty(lengths, 100, 40), torch.tensor([0.0, 0.0, -0.25, -0.5, -1.0]))
    assert (overlong_penalty(lengths, 100, 0) == 0).all()


def test_parts_scaled_each_by_itself_are_worked_out_by_hand():
    """One group right now and then, another that differs only by its format: with GRPO both get the same advantages."""
    right = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    formed = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    parts, weights = torch.stack([right, formed], dim=-1), torch.tensor([1.0, 0.5])
    by_part = [group_advantages(right), group_advantages(formed)]
    expected = by_part[0] + 0.5 * by_part[1]
    assert torch.allclose(decoupled_advantages(parts, weights), expected / (expected.std() + 1e-4))
    # a one in four, scaled, is the same whatever it is worth: half the weight is half the advantage
    assert torch.allclose(expected[1], 0.5 * group_advantages(right)[0])
    assert torch.allclose(group_advantages(parts @ weights)[1], group_advantages(right)[0], atol=1e-3)


def test_a_group_whose_every_part_is_the_same_is_dead_exactly():
    parts = torch.tensor([[[0.1, 0.7]] * 3, [[1.0, 0.7], [0.0, 0.7], [0.0, 0.7]]], dtype=torch.float64)
    advantages = decoupled_advantages(parts, torch.tensor([1.0, 0.1], dtype=torch.float64))
    assert (advantages[0] == 0).all()
    assert advantages[1].abs().min() > 0.1


def test_parts_are_aggregated_as_trl_does():
    """Its formula, on random rewards, to its own rounding; an optional test, for the peer is an extra."""
    pytest.importorskip("trl", reason="needs the extra [bench]")
    from trl.trainer.utils import nanstd

    generator = torch.Generator().manual_seed(3)
    parts = torch.rand(6, 4, 3, generator=generator)
    weights = torch.tensor([1.0, 0.3, 0.1])
    each = (parts - parts.mean(1, keepdim=True)) / (nanstd(parts, dim=1, keepdim=True) + 1e-4)
    summed = (each * weights).sum(-1).flatten()
    theirs = (summed - summed.mean()) / (nanstd(summed) + 1e-4)
    assert torch.allclose(decoupled_advantages(parts, weights).flatten(), theirs, atol=1e-5)
