"""Advantages worked out by hand, and what is true of them all."""

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
def test_equal_rewards_have_no_advantage(scale, reward, size):
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


def test_components_scaled_each_by_itself_are_worked_out_by_hand():
    """One group right now and then, another that differs only by its format: with GRPO both get the same advantages."""
    right = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    formed = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    components, weights = torch.stack([right, formed], dim=-1), torch.tensor([1.0, 0.5])
    by_component = [group_advantages(right), group_advantages(formed)]
    expected = by_component[0] + 0.5 * by_component[1]
    assert torch.allclose(decoupled_advantages(components, weights), expected / (expected.std() + 1e-4))
    # a one in four, scaled, is the same whatever it is worth: half the weight is half the advantage
    assert torch.allclose(expected[1], 0.5 * group_advantages(right)[0])
    assert torch.allclose(group_advantages(components @ weights)[1], group_advantages(right)[0], atol=1e-3)


def test_a_group_without_variance_in_any_component_has_advantages_of_exactly_zero():
    components = torch.tensor([[[0.1, 0.7]] * 3, [[1.0, 0.7], [0.0, 0.7], [0.0, 0.7]]], dtype=torch.float64)
    advantages = decoupled_advantages(components, torch.tensor([1.0, 0.1], dtype=torch.float64))
    assert (advantages[0] == 0).all()
    assert advantages[1].abs().min() > 0.1
