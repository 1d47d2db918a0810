"""The adapted linear layer against PEFT's own forward, which it replaces."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.lora import LoraLayer

from rl_lightning.policy import products
from rl_lightning.policy.config import PolicyConfig
from rl_lightning.policy.loading import load_model
from rl_lightning.policy.lora import adapted

CPU = torch.device("cpu")


def model_of(**settings):
    model = load_model(PolicyConfig("tiny", **settings), CPU, seed=0)
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    generator = torch.Generator().manual_seed(1)
    for layer in layers:
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.05, generator=generator)
    return model.train(), layers


def as_peft(layers) -> None:
    """Its own forward again."""
    for layer in layers:
        del layer.forward


def results(model, dtype=torch.float32, seed=0):
    """Last hidden states, and what a loss of them gives the adapters."""
    model.zero_grad()
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 600, (2, 20), generator=generator)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        hidden = model.get_base_model().get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    (hidden.float() * torch.randn(hidden.shape, generator=generator)).sum().backward()
    return [hidden.detach().float()] + [p.grad.clone() for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize(
    ("checkpointing", "way"), [("on", "linear"), ("off", "linear"), ("off", "onednn"), ("off", "transposed")]
)
def test_values_and_gradients_equal_pefts(quantization, checkpointing, way, monkeypatch):
    monkeypatch.setattr(products, "_chosen", lambda *_: way)
    model, layers = model_of(quantization=quantization, gradient_checkpointing=checkpointing)
    ours = results(model)
    as_peft(layers)
    for mine, theirs in zip(ours, results(model), strict=True):
        assert (mine - theirs).norm() <= 1e-5 * theirs.norm()
        assert theirs.norm() > 0


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_it_is_as_near_to_float32_as_pefts(quantization, dtype):
    names = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
    ours, _ = model_of(quantization=quantization, dtype=names[dtype])
    pefts, layers = model_of(quantization=quantization, dtype=names[dtype])
    exact, exact_layers = model_of(quantization=quantization)
    as_peft(layers + exact_layers)
    errors = []
    for model in (ours, pefts):
        pairs = [
            pair
            for seed in range(4)
            for pair in zip(results(model, dtype, seed), results(exact, seed=seed), strict=True)
        ]
        errors.append(sum(float((found - true).norm() / true.norm()) for found, true in pairs))
    assert errors[0] <= 1.05 * errors[1]
    assert all(p.dtype == torch.float32 for p in ours.parameters() if p.requires_grad)


def test_adapters_that_are_switched_off_change_nothing():
    _, layers = model_of(quantization="none")
    x = torch.randn(3, layers[0].in_features)
    layers[0].enable_adapters(False)
    assert torch.equal(adapted(layers[0], x), layers[0].get_base_layer()(x))


def test_an_input_without_gradient_gets_none_and_the_output_is_not_kept():
    _, layers = model_of(quantization="none")
    layer = next(layer for layer in layers if layer.out_features > layer.in_features)
    x = torch.randn(1, 5, layer.in_features)
    out = layer(x)
    kept = {tuple(each.shape) for each in out.grad_fn.saved_tensors}
    out.sum().backward()
    assert x.grad is None
    assert kept == {(5, layer.in_features), (5, 16), (16, layer.in_features), (layer.out_features, 16)}
    assert layer.lora_A["default"].weight.grad.norm() > 0
