"""Rollout batches joined: of two goes of sampling, and of several ranks."""

from __future__ import annotations

from dataclasses import replace

import torch

from rl_lightning.training.joining import append, interleave
from rl_lightning.types import RolloutBatch
from tests.training.constructed import rollout_batch


def assert_same(ours: RolloutBatch, theirs: RolloutBatch) -> None:
    assert ours.prompts.problems == theirs.prompts.problems
    assert (ours.prompts.cursor, ours.prompts.skipped) == (theirs.prompts.cursor, theirs.prompts.skipped)
    assert torch.equal(ours.prompts.prompt_ids, theirs.prompts.prompt_ids)
    assert torch.equal(ours.prompts.prompt_lengths, theirs.prompts.prompt_lengths)
    assert ours.rollout.texts == theirs.rollout.texts
    names = ("prompt_ids", "prompt_lengths", "completion_ids", "mask", "sampling_logps", "finished")
    assert all(torch.equal(getattr(ours.rollout, name), getattr(theirs.rollout, name)) for name in names)
    assert ours.scores == theirs.scores
    assert all(torch.equal(getattr(ours, n), getattr(theirs, n)) for n in ("reward_components", "rewards", "kept"))


def test_joined_rollouts_keep_every_row():
    joined = append(rollout_batch([0, 1], [True, False], width=3), rollout_batch([7], [True], width=5))
    rollout = joined.rollout
    assert len(joined) == 3
    assert rollout.completion_ids.shape == rollout.mask.shape == rollout.sampling_logps.shape == (6, 5)
    assert rollout.completion_ids[:, :3].tolist() == [[n] * 3 for n in (0, 0, 1, 1, 7, 7)]
    assert rollout.lengths.tolist() == [3, 3, 3, 3, 5, 5]
    assert rollout.prompt_lengths.tolist() == [3, 3, 5]
    assert rollout.texts == ("1", "0", "0", "0", "1", "0")
    assert rollout.group_size == 2
    assert joined.rewards.tolist() == [[1, 0], [0, 0], [1, 0]]
    assert [(problem.index, share) for problem, share in joined.accuracies] == [(0, 0.5), (1, 0.0), (7, 0.5)]


def test_extra_prompts_do_not_move_the_stream_and_what_they_passed_over_is_counted():
    first, more = rollout_batch([0, 1], [True, False]), rollout_batch([107], [True])
    joined = append(first, more)
    assert joined.prompts.cursor == first.prompts.cursor
    assert joined.prompts.skipped == {"held_out": 2}


def test_the_shares_of_ranks_are_put_back_into_the_order_of_the_prompts():
    numbers, varies = [4, 9, 2, 7, 5], [True, False, False, True, True]
    whole = rollout_batch(numbers, varies)
    shares = []
    for rank in range(2):
        mine = slice(rank, None, 2)
        shares.append(replace(rollout_batch(numbers[mine], varies[mine]), prompts=whole.prompts.select(mine)))
    assert_same(interleave(shares), whole)


def test_one_rank_has_it_all():
    alone = rollout_batch([4, 9], [True, False])
    assert interleave([alone]) is alone
