from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lightning.policy import cut
from rl_lightning.types import Rollout


def rollout(prompt_lengths: list[int], lengths: list[int]) -> Rollout:
    """Prompt tokens are 100 b + place, completion tokens 1000 n + place, so that each says where it belongs."""
    prompts, width = max(prompt_lengths), max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    prompt_ids = torch.arange(len(prompt_lengths))[:, None] * 100 + torch.arange(prompts) + 1
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
    whole, seen = rollout(prompt_lengths, lengths), []
    for micro in cut(whole, rows, budget):
        assert len(micro.rows) == 1 or micro.input_ids.numel() <= budget
        for r, row in enumerate(micro.rows.tolist()):
            prompt, completion = prompt_lengths[row // group], lengths[row]
            expected = (
                whole.prompt_ids[row // group, :prompt].tolist() + whole.completion_ids[row, :completion].tolist()
            )
            assert micro.input_ids[r, : len(expected)].tolist() == expected
            assert (micro.input_ids[r, len(expected) :] == 0).all()
            assert micro.predicts[r].nonzero().flatten().tolist() == list(range(prompt - 1, prompt + completion - 1))
        # What a predicting position predicts is the next input token.
        assert torch.equal(micro.input_ids.roll(-1, 1)[micro.predicts], micro.targets)
        assert torch.equal(whole.completion_ids[micro.row_of, micro.column_of], micro.targets)
        seen += micro.targets.tolist()
    assert sorted(seen) == sorted(whole.completion_ids[rows][whole.mask[rows]].tolist())
