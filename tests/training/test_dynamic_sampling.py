"""Dynamic sampling: extra prompts in place of groups without reward variance, and which groups per step is made of."""

from __future__ import annotations

import math
import random
from statistics import fmean, stdev

import pytest
import torch

from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.rollout import Sampling
from rl_lightning.training.dynamic_sampling import extra_prompts_needed, groups_to_keep
from rl_lightning.types import RolloutBatch, UserError
from tests.training.constructed import ConstructedEngine, ConstructedPrompts, ConstructedScorer, prompt_batch

FIRST = prompt_batch([0, 1, 2, 3])


def collected(with_variance: set[int], **sampling) -> tuple[RolloutBatch, list[int]]:
    """What a step of four prompts comes to if the groups of these problems have variance, and how many extra prompts it took."""
    engine = ConstructedEngine(with_variance)
    module = GRPOModule(sampling=Sampling(2, 8, **sampling), engine=engine)
    module.prompt_source, module.scorer = ConstructedPrompts(), ConstructedScorer()
    rollouts = module.collect_rollouts(FIRST)
    assert engine.synced == 1  # the policy does not change meanwhile
    return rollouts, module.prompt_source.counts


def kept(rollouts: RolloutBatch) -> list[int]:
    return [p.index for p, kept in zip(rollouts.prompts.problems, rollouts.kept, strict=True) if kept]


def test_without_resampling_it_is_plain_grpo():
    rollouts, counts = collected({0}, max_resample=1)
    assert not counts
    assert len(rollouts) == 4
    assert rollouts.kept.all()


def test_groups_without_reward_variance_are_replaced_until_all_have_some():
    rollouts, counts = collected({1, 2, 101, 103}, max_resample=4)
    # two of four have variance, so of four extra ones two are hoped for
    assert counts == [4]
    assert kept(rollouts) == [1, 2, 101, 103]
    assert rollouts.prompts.cursor == FIRST.cursor  # extra prompts do not move the stream
    assert rollouts.prompts.skipped == {"held_out": 2}


def test_sampling_is_limited_and_groups_without_reward_variance_fill_up_the_step():
    rollouts, counts = collected({2, 106}, max_resample=3)
    assert counts == [4, 4]  # never more at once than the memory plan is made for
    assert len(rollouts) == 12
    assert kept(rollouts) == [0, 1, 2, 106]


def test_a_share_of_groups_with_reward_variance_is_enough():
    rollouts, _ = collected({0, 1}, max_resample=4, min_variance_share=0.5)
    assert len(rollouts) == 4
    rollouts, counts = collected({0, 100}, max_resample=4, min_variance_share=0.5)
    assert int(rollouts.kept.sum()) == 4
    assert counts == [4]  # and not more, though two of the four kept have none


@pytest.mark.parametrize(
    ("sampled", "with_variance", "settings", "expected"),
    [
        (8, 8, {"max_resample": 3}, 0),
        (8, 4, {"max_resample": 1}, 0),  # plain GRPO
        (8, 6, {"max_resample": 3}, 3),  # two are missing, and three of four have variance
        (8, 1, {"max_resample": 3}, 8),  # 56 would be needed: never more than a step's prompts at once
        (8, 0, {"max_resample": 3}, 8),
        (20, 5, {"max_resample": 3}, 4),  # twelve would be needed, and four are left
        (24, 5, {"max_resample": 3}, 0),  # all used up
        (8, 4, {"max_resample": 3, "min_variance_share": 0.5}, 0),
        (8, 2, {"max_resample": 3, "min_variance_share": 0.3}, 4),  # 2.4 are three
    ],
)
def test_how_many_extra_prompts_are_needed_is_worked_out_by_hand(sampled, with_variance, settings, expected):
    variance = torch.arange(sampled) < with_variance
    assert extra_prompts_needed(Sampling(2, 8, **settings), 8, variance) == expected


def test_groups_with_reward_variance_are_kept_first_and_of_equals_the_earlier():
    variance = torch.tensor([False, True, False, True, True])
    assert groups_to_keep(variance, 2).nonzero().flatten().tolist() == [1, 3]
    assert groups_to_keep(variance, 4).nonzero().flatten().tolist() == [0, 1, 3, 4]


def test_a_baseline_by_which_every_group_has_advantages_leaves_none_to_replace():
    with pytest.raises(UserError, match="max_resample"):
        GRPOModule(sampling=Sampling(max_resample=2), objective=Objective(baseline="batch", scale_advantages="batch"))


def test_a_mean_over_all_groups_is_the_policys_and_one_over_those_kept_is_not():
    """A row of the table of docs/dynamic_sampling.md, with fewer steps: the policy is right in 0.045 of its answers."""
    draw, sampling = random.Random(0), Sampling(16, 8, max_resample=3)

    def group():
        chance = draw.choice([0.01, 0.02, 0.05, 0.1])
        return sum(draw.random() < chance for _ in range(16)) / 16

    of_all, of_kept = [], []
    for _ in range(1500):
        groups = [group() for _ in range(8)]
        while count := extra_prompts_needed(sampling, 8, torch.tensor([0 < share < 1 for share in groups])):
            groups += [group() for _ in range(count)]
        kept = groups_to_keep(torch.tensor([0 < share < 1 for share in groups]), 8)
        of_all += groups
        of_kept += [share for share, is_kept in zip(groups, kept.tolist(), strict=True) if is_kept]
    error = stdev(of_all) / math.sqrt(len(of_all))
    assert abs(fmean(of_all) - 0.045) < 3 * error
    assert fmean(of_kept) > 0.09


@pytest.mark.parametrize(
    ("p", "k", "gradient", "taken"),
    [
        (0.02, 4, 0.30, 0.31),
        (0.05, 4, 0.38, 0.39),
        (0.10, 4, 0.49, 0.51),
        (0.50, 4, 0.88, 0.91),
        (0.05, 8, 0.66, 0.67),
        (0.50, 8, 0.99, 1.00),
    ],
)
def test_a_group_given_up_early_saves_no_more_than_it_loses(p, k, gradient, taken):
    """The table of docs/dynamic_sampling.md. Of a group with m of G right, sum (r - mean) (r - p) is m (G - m) / G."""
    size = 16

    def chance(n, m):
        return math.comb(n, m) * p**m * (1 - p) ** (n - m)

    found = sum(
        chance(k, a) * chance(size - k, b) * (a + b) * (size - a - b) / size
        for a in range(1, k)
        for b in range(size - k + 1)
    )
    gone_on = 1 - p**k - (1 - p) ** k
    assert found / (p * (1 - p) * (size - 1)) == pytest.approx(gradient, abs=0.005)
    assert (k + (size - k) * gone_on) / size == pytest.approx(taken, abs=0.005)
