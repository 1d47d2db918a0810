"""Ids of a padded vocabulary that the tokenizer has no words for: never sampled, and no part of the distribution."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.policy import pack
from rl_lightning.rollout import Sampling
from rl_lightning.types import Problem, PromptBatch
from tests.conftest import generate
from tests.random_models import random_policy


@pytest.mark.parametrize("family", ["qwen3", "gemma2"], ids=["own network", "transformers"])
@pytest.mark.parametrize("sampling", [Sampling(4, 12), Sampling(4, 12, top_k=5)], ids=["all", "filtered"])
def test_they_are_never_sampled_however_likely_the_model_finds_them(family, sampling, tmp_path):
    policy = random_policy(family, tmp_path)
    words = policy.head.words
    assert words < len(policy.head.weight)
    with torch.no_grad():
        policy.head.weight[words:] *= 50
    policy.eos_token_ids = torch.tensor([-1])
    batch = PromptBatch((Problem("1"), Problem("2")), torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([3, 2]), 0)
    ids = batch.prompt_ids[:1]
    logits = policy.model(input_ids=ids).logits[0, -1]
    assert logits.argmax() >= words  # or this shows nothing
    rollout = generate(policy, batch, sampling)
    assert int(rollout.completion_ids.max()) < words
    if sampling.top_k:
        return
    for micro in pack(rollout, torch.arange(8), 10**6):
        logps = policy.log_probs(micro, 1.0)[0]
        torch.testing.assert_close(logps, rollout.sampling_logps[micro.row_of, micro.column_of], atol=1e-4, rtol=0)
