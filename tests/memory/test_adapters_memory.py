"""The plan counts the adapters that there are, as they are held: trained, fused for rollouts, and frozen as the reference."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from rl_lightning.memory import StepShape, arithmetic, make_plan
from rl_lightning.memory.device import Device
from rl_lightning.memory.shapes import shape_of
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.rollout import LocalEngine
from rl_lightning.rollout.memory import fused_adapter
from rl_lightning.rollout.policy_decoder import RolloutNetwork, decoder_of

CPU = torch.device("cpu")
TARGETS = [None, ["q_proj"], ["k_proj", "v_proj", "gate_proj"], ["layers.1.mlp.down_proj", "o_proj"]]


@pytest.mark.parametrize("targets", TARGETS, ids=str)
def test_adapters_need_what_was_predicted(targets):
    policy = Policy(PolicyConfig("tiny", quantization="none", lora_r=6, lora_target_modules=targets), CPU)
    shape = shape_of(AutoConfig.from_pretrained(EMBEDDED["tiny"]), targets)
    assert arithmetic.adapter(shape, 6) == sum(p.nbytes for p in policy.trained_parameters())
    network = decoder_of(policy, merged=False)
    assert isinstance(network, RolloutNetwork)
    products = [p for layer in network.layers for p in (layer.qkv, layer.out, layer.gate_up, layer.down)]
    assert fused_adapter(shape, 6, 4) == sum(p.a.nbytes + p.b.nbytes for p in products)


def test_the_plan_counts_the_named_layers_and_the_reference(tmp_path):
    step, device = StepShape(4, 4, 64, 32), Device("", "cpu", 8e9)

    def held(**settings) -> float:
        config = PolicyConfig("tiny", rollout_weights="merged", **settings)
        return make_plan(config, step, "auto", "auto", device, LocalEngine()).phases["update"]["adapter"]

    policy = Policy(PolicyConfig("tiny", lora_target_modules=["q_proj", "up_proj"]), CPU)
    policy.save(tmp_path)
    trained = sum(p.nbytes for p in policy.trained_parameters())
    assert held(lora_target_modules=["q_proj", "up_proj"]) == trained
    assert held(adapter=str(tmp_path)) == trained < held()
    assert held(adapter=str(tmp_path), reference="adapter") == 2 * trained
    began = Policy(PolicyConfig("tiny", adapter=str(tmp_path), reference="adapter"), CPU)
    assert sum(p.nbytes for p in began._reference) == trained
