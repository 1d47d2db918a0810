"""The prefill of packed prompts: keys and values of each prompt are those that it has alone."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.rollout import cache
from rl_lightning.rollout.cache import PromptCache
from rl_lightning.rollout.network import attend_whole_rows
from rl_lightning.rollout.policy_decoder import ThroughTransformers, rollout_network
from rl_lightning.rollout.probe import probe
from tests.policy.test_prefixes import DISTINCT, KINDS, PROMPTS, padded
from tests.random_models import random_policy

UNLIKE = [[first, *range(30, 30 + length)] for first, length in ((5, 6), (6, 2), (7, 4))]


class Counting:
    """A decoder that notes the shape of the ids of each forward pass."""

    def __init__(self, decoder):
        self.decoder, self.shapes = decoder, []
        self.head, self.kv_shape, self.devices = decoder.head, decoder.kv_shape, decoder.devices

    def __call__(self, ids, positions, attend):
        self.shapes.append(tuple(ids.shape))
        return self.decoder(ids, positions, attend)


def alone(decoder, prompt: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """(layers, heads, length, D) keys and values of one prompt in a forward pass of its own."""
    seen = []

    def attend(layer, query, key, value, kind):
        seen.append((key[0].clone(), value[0].clone()))
        return attend_whole_rows(layer, query, key, value, kind)

    decoder(torch.tensor([prompt]), torch.arange(len(prompt))[None], attend)
    keys, values = zip(*seen, strict=True)
    return torch.stack(keys), torch.stack(values)


def check(decoder, prompts: list[list[int]], held: PromptCache) -> None:
    """The held prompts have the keys and values that they have alone."""
    for number in range(held.first, held.end):
        for ours, theirs in zip((held.keys, held.values), alone(decoder, prompts[number]), strict=True):
            mine = torch.stack(ours)[:, number - held.first, :, : len(prompts[number])]
            assert (mine - theirs).norm() <= 1e-5 * theirs.norm()
            assert theirs.norm() > 0


@pytest.fixture(scope="module", params=[*KINDS, "network", "network with windows"])
def decoder(request, tmp_path_factory):
    """A decoder for each kind of attention: through transformers, or the network."""
    family, config = KINDS.get(request.param, KINDS["window" if "windows" in request.param else "plain"])
    policy = random_policy(family, tmp_path_factory.mktemp("models"), **config)
    if not request.param.startswith("network"):
        return ThroughTransformers(policy, probe(policy))
    network = rollout_network(policy, True, probe(policy))
    network.refresh()
    network.set_max_length(8)
    return network


@pytest.mark.parametrize(("prompts", "tokens"), [(PROMPTS, DISTINCT), (UNLIKE, 15)], ids=["alike", "unlike"])
@torch.no_grad()
def test_keys_and_values_are_those_of_each_prompt_alone(decoder, prompts, tokens):
    counting = Counting(decoder)
    check(decoder, prompts, PromptCache(counting, *padded(prompts), capacity=len(prompts)))
    assert counting.shapes == [(1, tokens)]  # no padding, and what is shared once


@torch.no_grad()
def test_each_part_of_the_prefill_shares_what_its_prompts_have_in_common(decoder, monkeypatch):
    """Rows of 8 tokens: two in a forward pass, and four prompts held at once."""
    monkeypatch.setattr(cache, "PREFILL_TOKENS", 8 * 2)
    counting = Counting(decoder)
    held = PromptCache(counting, *padded(PROMPTS), capacity=4)
    check(decoder, PROMPTS, held)
    held.prefill_next()
    assert (held.first, held.end) == (4, 6)
    check(decoder, PROMPTS, held)
    assert counting.shapes == [(1, 7 + 1), (1, 3 + 4), (1, 6 + 2)]
