"""The arithmetic and the simulation behind the tables of docs/scale.md."""

from __future__ import annotations

import numpy as np
import pytest
import several_ranks
import torch

from rl_lightning.distributed.torch_ranks import _pickled
from rl_lightning.rollout import Sampling
from rl_lightning.types import RolloutBatch
from tests.conftest import generate


def test_the_gradients_are_those_of_the_adapters(policy):
    held = sum(parameter.numel() for parameter in policy.trained_parameters())
    assert several_ranks.gradient_bytes("tiny", policy.config.lora_r) == 4 * held


def test_a_step_gathers_as_many_bytes_as_said(policy, batch):
    rollout = generate(policy, batch, Sampling(64, 64))
    rows, width = rollout.mask.shape
    zeros = torch.zeros(len(batch), 64)
    kept = torch.ones(len(batch), dtype=torch.bool)
    scored = RolloutBatch(batch, rollout, (), zeros[..., None].double(), zeros.double(), kept)
    said, _ = several_ranks.rollout_bytes(rows, width)
    assert len(_pickled(scored)) == pytest.approx(said, rel=0.3)


def test_a_sum_sends_each_byte_twice_but_a_ranks_own_share():
    assert several_ranks.seconds(100.0, 0.0, 2, 10.0) == 10.0
    assert several_ranks.seconds(0.0, 100.0, 4, 10.0) == 7.5


def test_who_waits_for_nobody():
    assert several_ranks.waiting(1, 4, several_ranks.every_wth, steps=3) == 0
    few, many = (several_ranks.waiting(8, per_rank, several_ranks.every_wth, steps=20) for per_rank in (1, 16))
    assert 0 < many < few < 1


def test_every_rank_gets_as_many_prompts_and_what_is_known_is_balanced():
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.standard_normal((32, 8)))
    load = []
    for share in (several_ranks.every_wth, several_ranks.by_expected(1.0)):
        of = share(lengths, rng, 4)
        assert np.bincount(of).tolist() == [8] * 4
        load.append(np.bincount(of, lengths.sum(1)).max())
    assert load[1] < load[0]
