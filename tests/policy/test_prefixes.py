"""Packing prompts: what they have in common from the start is there once, and computed as if each prompt were alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lightning.policy import pack, prefixes
from rl_lightning.policy.prefixes import common_prefixes, distinct_tokens, pack_prompts
from rl_lightning.types import Rollout
from tests.random_models import random_policy

PROMPTS = [
    [5, 6, 7, 8, 9, 10, 11],
    [5, 6, 7, 8, 9, 12],  # begins like the first one
    [5, 6, 7],  # a beginning of both
    [20, 6, 7, 8],  # begins otherwise, and goes on alike
    [5, 6, 7, 8, 9, 12],  # the second one again
    [5, 6, 7, 8, 9, 12, 13, 14],  # and continued
]
DISTINCT = 7 + 1 + 0 + 4 + 0 + 2


def padded(prompts: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, P) ids, padded with a token that prompts have too, and (B,) lengths."""
    width = max(map(len, prompts))
    ids = torch.tensor([prompt + [5] * (width - len(prompt)) for prompt in prompts])
    return ids, torch.tensor([len(prompt) for prompt in prompts])


def check(prompts: list[list[int]]) -> None:
    """The packed tokens are the beginnings of the prompts, each once."""
    ids, lengths = padded(prompts)
    common = common_prefixes(ids, lengths)
    packed = pack_prompts(ids, lengths, common)
    first_with: dict[tuple[int, ...], int] = {}
    for number, prompt in enumerate(prompts):
        for end in range(1, len(prompt) + 1):
            first_with.setdefault(tuple(prompt[:end]), number)
    assert packed.ids.tolist() == [beginning[-1] for beginning in first_with]
    assert packed.positions.tolist() == [len(beginning) - 1 for beginning in first_with]
    assert packed.prompt.tolist() == list(first_with.values())
    index = {beginning: number for number, beginning in enumerate(first_with)}
    for prompt, tokens in zip(prompts, packed.tokens.tolist(), strict=True):
        own = [index[tuple(prompt[:end])] for end in range(1, len(prompt) + 1)]
        assert tokens == own + [0] * (ids.shape[1] - len(prompt))
    assert torch.equal(common, common.T)
    for order in (range(len(prompts)), reversed(range(len(prompts)))):
        assert distinct_tokens(list(order), lengths.tolist(), common.tolist()) == len(first_with)


def test_a_token_is_packed_once_for_all_prompts_that_have_it_after_the_same_tokens():
    check(PROMPTS)
    ids, lengths = padded(PROMPTS)
    assert common_prefixes(ids, lengths)[1].tolist() == [5, 6, 3, 0, 6, 6]
    assert len(pack_prompts(ids, lengths, common_prefixes(ids, lengths)).ids) == DISTINCT


@settings(deadline=None)
@given(prompts=st.lists(st.lists(st.integers(5, 7), min_size=1, max_size=7), min_size=1, max_size=7))
def test_any_prompts_are_packed_as_their_distinct_beginnings(prompts):
    check(prompts)


@pytest.mark.parametrize("pairs", [1, len(PROMPTS) * 8 * 2])
def test_prompts_that_are_compared_in_parts_have_the_same_in_common(pairs, monkeypatch):
    whole = common_prefixes(*padded(PROMPTS))
    monkeypatch.setattr(prefixes, "COMPARED_TOKENS", pairs)
    assert torch.equal(common_prefixes(*padded(PROMPTS)), whole)


def rollout_of(prompts: list[list[int]], lengths: list[int]) -> Rollout:
    ids, prompt_lengths = padded(prompts)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    completions = torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    return Rollout(ids, prompt_lengths, completions, mask, mask * 0.0, mask.any(1), ("",) * len(lengths))


KINDS = {
    "plain": ("qwen2", {}),
    "window": ("mistral", {"sliding_window": 4}),
    "soft-cap": ("gemma2", {"head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 2.0}),
    "sinks": ("gpt_oss", {"head_dim": 8, "sliding_window": 4, "num_local_experts": 4, "num_experts_per_tok": 2}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_shared_beginnings_change_neither_log_probs_nor_gradients(kind, tmp_path):
    """Each row as a micro-batch of its own shares nothing."""
    family, config = KINDS[kind]
    policy, lengths = random_policy(family, tmp_path, **config), [4, 2, 1, 5, 3, 3, 2, 4, 1, 2, 6, 3]
    rollout, rows, results = rollout_of(PROMPTS, lengths), torch.arange(12), []
    for micros in (pack(rollout, rows, 10**6), [micro for row in rows for micro in pack(rollout, row[None], 10**6)]):
        logps, upstream = torch.zeros(rollout.mask.shape), torch.linspace(-1, 1.5, rollout.mask.numel())
        policy.zero_grad()
        for micro in micros:
            at = micro.row_of, micro.column_of
            logps[at], _ = policy.log_probs(micro, 1.0)
        (logps.flatten() * upstream).sum().backward()
        results.append((logps.detach(), torch.cat([p.grad.flatten() for p in policy.trained_parameters()])))
        tokens = sum(len(micro.input_ids) for micro in micros)
        prompt_tokens = DISTINCT if len(micros) == 1 else 2 * sum(map(len, PROMPTS))
        assert tokens == prompt_tokens + sum(lengths) - len(lengths)
    for shared, alone in zip(*results, strict=True):
        assert (shared - alone).norm() <= 1e-5 * alone.norm()
        assert alone.norm() > 0


def test_what_prompts_share_makes_room_for_more_rows():
    """Four prompts of 7 tokens with completions of 2: 6 + 4 + 4 tokens where they begin alike, and 28 + 4 where they do not."""
    alike = [[5, 6, 7, 8, 9, 10, last] for last in (11, 12, 13, 14)]
    assert len(pack(rollout_of(alike, [2] * 4), torch.arange(4), 16)) == 1
    otherwise = [[first, *rest] for first, (_, *rest) in zip((1, 2, 3, 4), alike, strict=True)]
    assert all(one[0] != other[0] for one, other in pairwise(otherwise))
    assert len(pack(rollout_of(otherwise, [2] * 4), torch.arange(4), 16)) == 2
