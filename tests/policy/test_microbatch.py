"""Packing a rollout into micro-batches: every completion token once, in its place, within the budget."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lightning.policy import pack
from rl_lightning.policy.microbatch import PADDED_SLOTS_PER_TOKEN
from rl_lightning.types import Rollout


def rollout(prompt_lengths: list[int], lengths: list[int], shared: list[int] | None = None) -> Rollout:
    """Prompt tokens are 100 b + position, completion tokens 1000 n + position, so that each says where it belongs; the first
    `shared[b]` tokens of a prompt are those of prompt 0."""
    prompts, width = max(prompt_lengths), max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    prompt_ids = torch.arange(len(prompt_lengths))[:, None] * 100 + torch.arange(prompts) + 1
    if shared is not None:
        begins_alike = torch.arange(prompts) < torch.tensor(shared)[:, None]
        prompt_ids = torch.where(begins_alike, prompt_ids[0], prompt_ids)
    completion_ids = torch.arange(len(lengths))[:, None] * 1000 + torch.arange(width) + 1000
    return Rollout(
        prompt_ids,
        torch.tensor(prompt_lengths),
        completion_ids * mask,
        mask,
        mask * 0.0,
        mask.any(1),
        ("",) * len(lengths),
    )


@settings(deadline=None)
@given(
    prompt_lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    group=st.integers(2, 4),
    budget=st.integers(1, 200),
    data=st.data(),
)
def test_every_completion_token_is_trained_once_in_its_place(prompt_lengths, group, budget, data):
    n = len(prompt_lengths) * group
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=n, max_size=n))
    rows = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n)), dtype=torch.int64)
    shared = data.draw(st.lists(st.integers(0, 9), min_size=len(prompt_lengths), max_size=len(prompt_lengths)))
    whole, seen = rollout(prompt_lengths, lengths, shared), []
    for micro in pack(whole, rows, budget):
        here = list(dict.fromkeys(micro.row_of.tolist()))
        assert len(here) == 1 or len(micro.input_ids) <= budget
        assert len(here) == 1 or sum(block.numel() for block in micro.rows.blocks) <= PADDED_SLOTS_PER_TOKEN * budget
        # Each beginning of a prompt once, each completion without its last token.
        prompts = [whole.prompt_ids[b, : prompt_lengths[b]].tolist() for b in {row // group for row in here}]
        beginnings = {tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)}
        assert len(micro.input_ids) == len(beginnings) + sum(lengths[row] - 1 for row in here)
        by_length = sorted(here, key=lambda row: -prompt_lengths[row // group] - lengths[row])
        for row, tokens in zip(by_length, [tokens for block in micro.rows.blocks for tokens in block], strict=True):
            prompt = whole.prompt_ids[row // group, : prompt_lengths[row // group]]
            expected = torch.cat([prompt, whole.completion_ids[row, : lengths[row] - 1]])
            assert 4 * len(expected) >= 3 * len(tokens)
            assert torch.equal(micro.input_ids[tokens[: len(expected)]], expected)
            assert torch.equal(micro.positions[tokens[: len(expected)]], torch.arange(len(expected)))
        slots = torch.cat([block.flatten() for block in micro.rows.blocks])
        assert torch.equal(slots[micro.rows.token_slot], torch.arange(len(micro.input_ids)))
        # What a predicting token predicts is what comes next in the row.
        assert torch.equal(whole.completion_ids[micro.row_of, micro.column_of], micro.targets)
        before = torch.where(
            micro.column_of > 0,
            whole.completion_ids[micro.row_of, micro.column_of - 1],
            whole.prompt_ids[micro.row_of // group, whole.prompt_lengths[micro.row_of // group] - 1],
        )
        assert torch.equal(micro.input_ids[micro.predicting], before)
        seen += micro.targets.tolist()
    assert sorted(seen) == sorted(whole.completion_ids[rows][whole.mask[rows]].tolist())


def test_groups_of_like_length_meet_and_a_group_stays_together():
    whole = rollout([4, 4, 4], [2, 2, 9, 9, 2, 2])
    parts = [micro.row_of.unique().tolist() for micro in pack(whole, torch.arange(6), 24)]
    assert parts == [[2, 3], [0, 1, 4, 5]]


def test_the_padding_of_rows_counts_towards_the_padded_slots():
    """Eight rows of 100 to 130 tokens in one block: 830 tokens in all, and 1,040 slots with padding."""
    whole, budget = rollout([100], [31] + [1] * 7), 450
    micros = pack(whole, torch.arange(8), budget)
    assert len(micros) == 2
    assert all(sum(block.numel() for block in micro.rows.blocks) <= PADDED_SLOTS_PER_TOKEN * budget for micro in micros)
