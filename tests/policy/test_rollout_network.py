"""What rollouts run on against transformers' forward of the layers that are trained."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.policy.attention import seam
from rl_lightning.policy.loading import EMBEDDED
from rl_lightning.policy.rollout_network import RolloutNetwork, ThroughTransformers, rollout_network
from rl_lightning.rollout import Sampling, sample_groups
from rl_lightning.rollout.network import causal_attention
from tests.conftest import shake

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def hidden(policy: Policy) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 6, H) of the rollout network and of the trained layers."""
    with torch.no_grad():
        with policy.sampling() as network:
            network.room_for(6)
            ours = network(IDS, torch.arange(6)[None], causal_attention)
        with policy.autocast():
            theirs = policy.model.get_base_model().get_decoder()(input_ids=IDS).last_hidden_state
    return ours, theirs


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("weights", ["merged", "trained"])
def test_the_network_gives_the_trained_layers_states_and_follows_them(quantization, weights):
    policy = Policy(PolicyConfig("tiny", quantization, rollout_weights=weights), CPU)
    assert isinstance(policy.rollout_network, RolloutNetwork)
    shake(policy)
    before, trained = hidden(policy)
    assert torch.allclose(before, trained, atol=2e-5)
    shake(policy, scale=0.05)
    after, trained = hidden(policy)
    assert torch.allclose(after, trained, atol=2e-5)
    assert not torch.allclose(after, before, atol=0.1)


@pytest.mark.parametrize("weights", ["merged", "trained"])
def test_in_16_bits_the_network_is_as_near_as_the_rounding(weights):
    policy = Policy(PolicyConfig("tiny", dtype="bfloat16", rollout_weights=weights), CPU)
    shake(policy)
    ours, theirs = hidden(policy)
    assert ours.dtype == torch.bfloat16
    head = policy.rollout_network.head
    ours, theirs = ((x @ head.T).float().log_softmax(-1) for x in (ours, theirs))
    assert (ours.exp() * (ours - theirs)).sum(-1).max() < 0.01  # nats


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "phi3"])
@pytest.mark.parametrize("merged", [True, False])
def test_every_family_of_the_shape_is_written_out_exactly(family, merged):
    model = random_model(family)
    network = rollout_network(model, torch.float32, merged)
    assert network is not None
    network.refresh()
    network.room_for(6)
    with torch.no_grad():
        ours = network(IDS, torch.arange(6)[None], causal_attention)
        theirs = model.get_base_model().get_decoder()(input_ids=IDS).last_hidden_state
    assert torch.allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("family", ["gpt_neox", "gemma"])
def test_a_model_of_another_shape_samples_through_transformers(family):
    """GPT-NeoX has other parts; Gemma the same with other norms, which only its numbers show."""
    model = random_model(family)
    network = ThroughTransformers(model, torch.autocast("cpu", enabled=False))
    with torch.no_grad():
        ours = network(IDS, torch.arange(6)[None], causal_attention)
        theirs = model.get_base_model().get_decoder()(input_ids=IDS).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_a_model_that_only_looks_the_same_is_found_out(tmp_path, batch, caplog):
    directory = tmp_path / "gemma"
    shutil.copytree(EMBEDDED["tiny"], directory)
    old = json.loads((directory / "config.json").read_text())
    config = AutoConfig.for_model("gemma", **SHAPE | {"vocab_size": old["vocab_size"], "head_dim": 8})
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    with caplog.at_level(logging.WARNING):
        policy = Policy(PolicyConfig(str(directory), "none"), CPU)
    assert isinstance(policy.rollout_network, ThroughTransformers)
    assert "GemmaForCausalLM is sampled by transformers' own forward" in caplog.text
    with policy.sampling() as network:
        rollout = sample_groups(
            network, batch, Sampling(2, 5), policy.end_token_ids, policy.decode_text, torch.Generator().manual_seed(0)
        )
    assert rollout.completion_ids.shape == (12, 5)


@pytest.mark.parametrize("weights", ["merged", "trained"])
def test_rounding_in_16_bits_is_not_taken_for_another_model(weights, tmp_path):
    """Norms as trained models have them: weights far from 1, and a last one that scales its input up by 8."""
    directory = tmp_path / "loud"
    shutil.copytree(EMBEDDED["tiny"], directory)
    tensors, generator = load_file(directory / "model.safetensors"), torch.Generator().manual_seed(0)
    for name in tensors:
        if name.endswith("norm.weight"):
            loud = 8 if name == "model.norm.weight" else 1
            tensors[name] = tensors[name] * loud * (1 + 0.3 * torch.randn(tensors[name].shape, generator=generator))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    policy = Policy(PolicyConfig(str(directory), dtype="bfloat16", rollout_weights=weights), CPU)
    assert isinstance(policy.rollout_network, RolloutNetwork)


def test_dense_copy_and_4_bits_with_adapters_sample_the_same(batch):
    rollouts = []
    for weights in ("merged", "trained"):
        policy = Policy(PolicyConfig("tiny", rollout_weights=weights), CPU)
        shake(policy)
        with policy.sampling() as network:
            generator = torch.Generator().manual_seed(0)
            rollouts.append(
                sample_groups(network, batch, Sampling(4, 32), policy.end_token_ids, policy.decode_text, generator)
            )
    assert torch.equal(rollouts[0].completion_ids, rollouts[1].completion_ids)
    assert torch.allclose(rollouts[0].sampling_logps, rollouts[1].sampling_logps, atol=1e-4)


def test_the_network_shares_what_no_adapter_changes_and_stays_out_of_the_state():
    policy = Policy(PolicyConfig("tiny", rollout_weights="merged"), CPU)
    network, base = policy.rollout_network, policy.model.get_base_model()
    assert network.head is base.lm_head.weight
    assert network.embedding is base.model.embed_tokens.weight
    assert network.layers[0].attention_norm is base.model.layers[0].input_layernorm.weight
    assert not any("network" in name for name in policy.state_dict())


def random_model(family: str):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE | ({"head_dim": 8} if family in ("qwen3", "gemma") else {}))
    base = AutoModelForCausalLM.from_config(config, attn_implementation=seam("sdpa")).eval()
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "norm" in name or "bias" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model
