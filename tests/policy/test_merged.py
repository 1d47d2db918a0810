"""The merged copy against the layers that it stands for."""

from __future__ import annotations

import pytest
import torch

from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import Sampling, sample_groups
from tests.conftest import shake

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def logits(policy: Policy) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the merged copy and of the trained layers."""
    with torch.no_grad():
        with policy.sampling() as model:
            merged = model(input_ids=IDS).logits
        with policy.autocast():
            trained = policy.model(input_ids=IDS).logits
    return merged, trained


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_the_copy_gives_the_trained_layers_logits_and_follows_them(quantization):
    policy = Policy(PolicyConfig("tiny", quantization, rollout_weights="merged"), torch.device("cpu"))
    shake(policy)
    before, trained = logits(policy)
    assert torch.allclose(before, trained, atol=2e-5)
    shake(policy, scale=0.05)
    after, trained = logits(policy)
    assert torch.allclose(after, trained, atol=2e-5)
    assert not torch.allclose(after, before, atol=0.1)


def test_in_16_bits_the_copy_is_as_near_as_the_rounding():
    policy = Policy(PolicyConfig("tiny", dtype="bfloat16", rollout_weights="merged"), torch.device("cpu"))
    shake(policy)
    merged, trained = (x.float().log_softmax(-1) for x in logits(policy))
    assert merged.dtype == torch.float32
    assert (merged.exp() * (merged - trained)).sum(-1).max() < 0.01  # nats


def test_the_copy_samples_what_the_trained_layers_sample(batch):
    rollouts = []
    for weights in ("merged", "trained"):
        policy = Policy(PolicyConfig("tiny", rollout_weights=weights), torch.device("cpu"))
        shake(policy)
        with policy.sampling() as model:
            rollouts.append(
                sample_groups(
                    model,
                    batch,
                    Sampling(4, 32),
                    policy.end_token_ids,
                    policy.decode_text,
                    torch.Generator().manual_seed(0),
                )
            )
    assert torch.equal(rollouts[0].completion_ids, rollouts[1].completion_ids)
    assert torch.allclose(rollouts[0].sampling_logps, rollouts[1].sampling_logps, atol=1e-4)


def test_the_copy_shares_what_no_adapter_changes_and_stays_out_of_the_state():
    policy = Policy(PolicyConfig("tiny", rollout_weights="merged"), torch.device("cpu"))
    assert policy.merged is not None
    copied = policy.merged.model
    base = policy.model.get_base_model()
    assert copied.lm_head.weight is base.lm_head.weight
    assert copied.model.layers[0].self_attn.q_proj.bias is base.model.layers[0].self_attn.q_proj.base_layer.bias
    assert not any(t.is_meta for t in [*copied.parameters(), *copied.buffers()])
    assert not any("merged" in name for name in policy.state_dict())
