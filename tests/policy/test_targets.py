"""Which layers get an adapter, in models that are more than a stack of linear layers."""

from __future__ import annotations

import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3Config,
    GPT2Config,
    GraniteMoeConfig,
    MixtralConfig,
    OlmoeConfig,
    Phi3Config,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from rl_lightning.policy.config import EMBEDDED, PolicyConfig
from rl_lightning.policy.loading import load_model
from rl_lightning.policy.lora import adapted_linears, is_adapted, lora_targets
from rl_lightning.types import UserError

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 640,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
}
GEMMA = Gemma3Config(text_config=SIZES | {"head_dim": 16}, vision_config=VISION, mm_tokens_per_image=4)
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj"}
CASES = [
    (Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=16), ATTENTION),
    (Qwen2MoeConfig(**SIZES, **EXPERTS, shared_expert_intermediate_size=48), ATTENTION),
    (MixtralConfig(**SIZES, num_local_experts=4), ATTENTION),
    (OlmoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2), ATTENTION),
    (GraniteMoeConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2), ATTENTION),
    (GEMMA, ATTENTION | MLP),
]


def on_meta(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def adapted_names(model) -> list[str]:
    return [name for name, module in model.get_base_model().named_modules() if is_adapted(module)]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize(("config", "expected"), CASES, ids=lambda case: getattr(case, "model_type", ""))
def test_layers_of_the_decoder_and_no_others(config, expected, quantization, tmp_path):
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_model(PolicyConfig(str(tmp_path), quantization=quantization), CPU, seed=0)
    names = adapted_names(model)
    assert names == list(adapted_linears(on_meta(config)))
    assert {name.rpartition(".")[2] for name in names} == expected
    assert not any("vision" in name for name in names)
    ids = torch.arange(3, 9)[None]
    model(input_ids=ids).logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_experts_memory_is_said(tmp_path, caplog):
    config = Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=16)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING):
        load_model(PolicyConfig(str(tmp_path), dtype="bfloat16"), CPU, seed=0)
    gigabytes = 2 * 2 * 4 * 3 * 32 * 64 / 1e9  # 16 bits, layers, experts, three matrices
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("rl_lightning")]
    assert f"experts have no adapter, and stay in 16 bits ({gigabytes:.2g} GB)" in line


@pytest.mark.parametrize("config", [Phi3Config(**SIZES), AutoConfig.from_pretrained(EMBEDDED["tiny"])])
def test_plain_models_have_the_adapters_of_all_linear(config):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config)
    policies = []
    for targets in (lora_targets(base), "all-linear"):
        torch.manual_seed(1)
        policies.append(get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(target_modules=targets)))
    ours, pefts = ({n: p for n, p in m.named_parameters() if p.requires_grad} for m in policies)
    assert list(ours) == list(pefts)
    assert all(torch.equal(ours[name], pefts[name]) for name in ours if "lora_A" in name)


def test_without_linear_layers_it_is_one_line():
    with pytest.raises(UserError, match="GPT2LMHeadModel has no linear layers that LoRA could adapt"):
        adapted_linears(on_meta(GPT2Config(n_layer=2)))
