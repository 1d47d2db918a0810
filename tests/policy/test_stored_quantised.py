"""Checkpoints whose weights are stored quantised: each trains right, or is refused in one line."""

from __future__ import annotations

import json

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GptOssConfig, Qwen2Config

from rl_lightning.policy.config import PolicyConfig
from rl_lightning.policy.loading import load_model
from rl_lightning.policy.lora import dense_weight, is_adapted
from rl_lightning.types import UserError

CPU = torch.device("cpu")
IDS = torch.arange(3, 12)[None]
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 640,
    "pad_token_id": 0,
}
FP4_VALUES = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]


def saved(config, directory):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


def say_quantised(directory, **quantization):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))


def policy_of(directory, quantization):
    return load_model(PolicyConfig(str(directory), quantization=quantization), CPU, seed=0)


def logits_and_gradients(model):
    """Logits, and the gradients of B, which are the adapters' only ones that are not zero at the start."""
    logits = model(input_ids=IDS).logits
    logits.square().sum().backward()
    return [logits.detach(), *[p.grad for n, p in model.named_parameters() if "lora_B" in n]]


def assert_same(ours, theirs):
    for mine, other in zip(logits_and_gradients(ours), logits_and_gradients(theirs), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))
        assert mine.abs().max() > 0


@pytest.fixture
def in_4_bits(tmp_path):
    dense = saved(Qwen2Config(**SIZES), tmp_path / "dense")
    way = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_compute_dtype=torch.bfloat16)
    AutoModelForCausalLM.from_pretrained(dense, quantization_config=way, device_map={"": CPU}).save_pretrained(
        tmp_path / "stored"
    )
    return tmp_path / "stored"


def test_4_bits_stay_as_they_are_and_compute_in_our_dtype(in_4_bits, tmp_path):
    model = policy_of(in_4_bits, "nf4")
    layers = [m.get_base_layer() for m in model.modules() if is_adapted(m)]
    assert len(layers) == 14
    assert all(isinstance(layer, Linear4bit) and layer.weight.quant_state.quant_type == "fp4" for layer in layers)
    dense = AutoModelForCausalLM.from_config(Qwen2Config(**SIZES))
    state = {n.replace(".base_layer", ""): p for n, p in model.get_base_model().named_parameters() if "lora_" not in n}
    names = {n.replace(".base_layer", ""): m for n, m in model.get_base_model().named_modules() if is_adapted(m)}
    state |= {f"{name}.weight": dense_weight(layer.get_base_layer()).float() for name, layer in names.items()}
    dense.load_state_dict(state, strict=True)
    dense.save_pretrained(tmp_path / "again")
    assert_same(model, policy_of(tmp_path / "again", "none"))
    assert {layer.compute_dtype for layer in layers} == {torch.float32}  # the checkpoint says bfloat16


def test_4_bits_are_not_none(in_4_bits):
    with pytest.raises(UserError, match="stored quantised by bitsandbytes in 4 bits; set it to nf4") as caught:
        policy_of(in_4_bits, "none")
    assert "\n" not in str(caught.value)


def test_fp8_is_dequantised(tmp_path):
    original = saved(Qwen2Config(**SIZES), tmp_path / "original")
    stored, again = saved(Qwen2Config(**SIZES), tmp_path / "stored"), saved(Qwen2Config(**SIZES), tmp_path / "again")
    weights, packed = load_file(original / "model.safetensors"), {}
    for name, weight in list(weights.items()):
        if name.endswith("_proj.weight"):
            scale = weight.abs().max() / 448
            packed[name] = (weight / scale).to(torch.float8_e4m3fn)
            blocks = [-(-n // 128) for n in weight.shape]
            packed[f"{name}_scale_inv"] = scale.expand(*blocks).clone()
            weights[name] = packed[name].float() * scale
    save_file(weights | packed, stored / "model.safetensors", metadata={"format": "pt"})
    save_file(weights, again / "model.safetensors", metadata={"format": "pt"})
    say_quantised(stored, quant_method="fp8", activation_scheme="dynamic", weight_block_size=[128, 128])
    assert_same(policy_of(stored, "none"), policy_of(again, "none"))
    with pytest.raises(UserError, match="stored quantised by fp8; set it to none"):
        policy_of(stored, "nf4")


def test_mxfp4_experts_are_dequantised(tmp_path):
    config = GptOssConfig(**SIZES, head_dim=32, num_local_experts=4, num_experts_per_tok=2)
    stored, again = saved(config, tmp_path / "stored"), saved(config, tmp_path / "again")
    weights = load_file(stored / "model.safetensors")
    packed = dict(weights)
    generator = torch.Generator().manual_seed(0)
    for name in [n for n in weights if n.endswith("experts.gate_up_proj") or n.endswith("experts.down_proj")]:
        experts, inputs, outputs = weights[name].shape
        codes = torch.randint(0, 16, (experts, outputs, inputs), generator=generator, dtype=torch.uint8)
        scales = torch.randint(120, 124, (experts, outputs, inputs // 32), generator=generator, dtype=torch.uint8)
        weights[name] = (
            (torch.tensor(FP4_VALUES)[codes.long()] * 2.0 ** (scales.float() - 127).repeat_interleave(32, -1))
            .transpose(1, 2)
            .contiguous()
        )
        pairs = codes.view(experts, outputs, inputs // 32, 16, 2)
        del packed[name]
        packed[f"{name}_blocks"] = pairs[..., 0] | pairs[..., 1] << 4
        packed[f"{name}_scales"] = scales
    save_file(packed, stored / "model.safetensors", metadata={"format": "pt"})
    save_file(weights, again / "model.safetensors", metadata={"format": "pt"})
    say_quantised(stored, quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "lm_head"])
    ours, theirs = (
        load_model(PolicyConfig(str(path), quantization="none", attn_implementation="eager"), CPU, seed=0)
        for path in (stored, again)
    )
    assert_same(ours, theirs)
    with pytest.raises(UserError, match="stored quantised by mxfp4; set it to none, which dequantises it"):
        policy_of(stored, "nf4")


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize(
    "stored",
    [
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"quant_method": "gptq", "bits": 4, "group_size": 128},
        {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
        {"quant_method": "fbgemm_fp8"},
        {"quant_method": "hqq"},
        {"quant_method": "modelopt"},
        {"bits": 4},
    ],
    ids=lambda stored: stored.get("quant_method", "unnamed"),
)
def test_what_cannot_be_trained_is_one_line(stored, quantization, tmp_path):
    say_quantised(saved(Qwen2Config(**SIZES), tmp_path), **stored)
    with pytest.raises(UserError, match="which cannot be trained here; use the original model") as caught:
        policy_of(tmp_path, quantization)
    assert "\n" not in str(caught.value)
