"""LoRA's settings: which layers, which scale, which initial values. Rollout, update and self-test follow them."""

from __future__ import annotations

import json
import logging
import math

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, Phi3Config

from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.policy.loading import load_model
from rl_lightning.policy.lora import adapted_linears, chosen_linears, is_adapted, lora_targets
from rl_lightning.policy.short_copy import short_copy
from rl_lightning.rollout.policy_decoder import RolloutNetwork, decoder_of
from rl_lightning.rollout.self_test import TOLERANCE, WINDOW, measure, self_test
from rl_lightning.types import UserError
from tests.conftest import shake

CPU = torch.device("cpu")
SETTINGS = [
    {"use_rslora": True},
    {"lora_target_modules": ["q_proj"], "lora_r": 4},
    {"lora_target_modules": ["up_proj", "self_attn.v_proj"], "use_rslora": True},
    {"lora_target_modules": ["model.layers.2.mlp.down_proj"], "init_lora_weights": "gaussian"},
    {"init_lora_weights": "orthogonal"},
]


def policy_of(quantization="none", **settings) -> Policy:
    return Policy(PolicyConfig("tiny", quantization=quantization, **settings), CPU)


def adapted_names(policy) -> set[str]:
    return {name for name, module in policy.model.get_base_model().named_modules() if is_adapted(module)}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_self_test_passes_and_the_rollouts_network_is_the_fast_one(settings, merged, quantization, caplog):
    policy = policy_of(quantization, **settings)
    assert measure(short_copy(policy, CPU, WINDOW), merged).worst[0] < TOLERANCE
    with caplog.at_level(logging.WARNING):
        self_test(policy, merged)
        shake(policy, 0.3)
        assert isinstance(decoder_of(policy, merged), RolloutNetwork)
    assert not caplog.records


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_saved_adapter_gives_plain_peft_the_same_logits(settings, tmp_path):
    policy = policy_of(**settings)
    shake(policy, 0.3)
    policy.save(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(EMBEDDED["tiny"])
    ids = torch.tensor([[5, 9, 3, 20, 7]])
    with torch.no_grad():
        before, ours = base(ids).logits, policy.model(ids).logits
        assert torch.allclose(ours, PeftModel.from_pretrained(base, tmp_path)(ids).logits, atol=1e-5)
    assert not torch.allclose(ours, before, atol=1e-2)


def test_the_layers_are_those_that_are_named():
    every = {f"model.layers.{n}.{part}" for n in range(4) for part in ("self_attn.v_proj", "mlp.up_proj")}
    assert adapted_names(policy_of(**SETTINGS[2])) == every
    assert adapted_names(policy_of(**SETTINGS[3])) == {"model.layers.2.mlp.down_proj"}


def test_a_name_may_be_fused_layers_or_is_refused_with_those_there_are():
    with torch.device("meta"):
        phi = AutoModelForCausalLM.from_config(Phi3Config(num_hidden_layers=2, hidden_size=64, num_attention_heads=4))
    linears = adapted_linears(phi)
    chosen = chosen_linears(linears, ["qkv_proj"])
    assert set(chosen) == {f"model.layers.{n}.self_attn.qkv_proj" for n in range(2)}
    assert lora_targets(phi, chosen) == ["qkv_proj"]
    with pytest.raises(UserError, match="'proj' is none of .*; there are: down_proj, gate_up_proj, o_proj, qkv_proj"):
        chosen_linears(linears, ["o_proj", "proj"])


def test_the_scale_is_alpha_by_rank_or_by_its_root(tmp_path):
    for rslora, scale in ((False, 32 / 9), (True, 32 / 3)):
        policy = policy_of(lora_r=9, use_rslora=rslora)
        layers = [layer for layer in policy.model.modules() if is_adapted(layer)]
        assert all(math.isclose(layer.scaling["default"], scale) for layer in layers)
        policy.save(tmp_path)
        assert json.loads((tmp_path / "adapter_config.json").read_text())["use_rslora"] is rslora


@pytest.mark.parametrize("initial", [True, "gaussian", "orthogonal"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_fresh_adapter_leaves_the_base_as_it_is(initial, dtype, quantization):
    state = torch.get_rng_state()
    model, other = (
        load_model(
            PolicyConfig("tiny", quantization=quantization, dtype=dtype, init_lora_weights=initial, lora_r=8), CPU, seed
        )
        for seed in (0, 1)
    )
    assert torch.equal(state, torch.get_rng_state())
    for layer, fresh in zip(*([m for m in each.modules() if is_adapted(m)] for each in (model, other)), strict=True):
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert a.dtype == b.dtype == torch.float32
        assert (b @ a).norm() <= 1e-6 * (1 + b.norm() * a.norm())
        assert (b.norm() > 0) == (initial == "orthogonal")
        assert not torch.equal(a, fresh.lora_A["default"].weight)
        if initial == "gaussian":
            assert float(a.detach().std()) == pytest.approx(1 / 8, rel=0.2)
