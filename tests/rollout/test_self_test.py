"""The self-test accepts right families, and catches what a family does differently and what is broken here on purpose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from rl_lightning.policy import Policy, lora
from rl_lightning.policy.attention import AttentionKind
from rl_lightning.rollout import policy_decoder
from rl_lightning.rollout.policy_decoder import RolloutNetwork, ThroughTransformers, decoder_of
from rl_lightning.rollout.self_test import self_test
from rl_lightning.types import UserError
from tests.random_models import random_policy

DTYPES = ["float32", "bfloat16"]
WINDOWS = {"sliding_window": 12}


def with_logits(change):
    """The model changes its logits in a way that its config does not tell."""

    def break_it(policy, monkeypatch):
        def hook(module, args, out):
            out.logits = change(out.logits)
            return out

        policy.model.get_base_model().register_forward_hook(hook)

    return break_it


def head_bias(policy, monkeypatch):
    head = policy.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(0.1 * torch.randn(len(head.weight), dtype=head.weight.dtype), False)


def dropped_mask(policy, monkeypatch):
    original = F.scaled_dot_product_attention

    def see_all(*args, is_causal=False, **more):
        return original(*args, **more)

    monkeypatch.setattr(F, "scaled_dot_product_attention", see_all)


def dropout(policy, monkeypatch):
    monkeypatch.setattr(Policy, "train", torch.nn.Module.train)
    for layer in policy.model.get_base_model().get_decoder().layers:
        layer.mlp.register_forward_hook(lambda module, args, out: F.dropout(out, 0.1, module.training))
    policy.train()


def gradients_of_another_scale(policy, monkeypatch):
    original = lora._AdaptedProduct.backward

    def backward(ctx, grad):
        x, a, b, *rest = original(ctx, grad)
        return x, a * 1.02, b, *rest

    monkeypatch.setattr(lora._AdaptedProduct, "backward", staticmethod(backward))


def stretched_positions(policy, monkeypatch):
    original = Policy.hidden_states
    monkeypatch.setattr(Policy, "hidden_states", lambda self, ids, at, **more: original(self, ids, 2 * at, **more))


def other_adapters(policy, monkeypatch):
    """The rollout adds adapters of another scale than the update."""
    for name in ("Merged", "Adapted"):
        original = getattr(policy_decoder, name).refresh

        def refresh(self, original=original):
            for layer in self.layers:
                layer.scaling["default"] *= 1.1
            original(self)
            for layer in self.layers:
                layer.scaling["default"] /= 1.1

        monkeypatch.setattr(getattr(policy_decoder, name), "refresh", refresh)


REFUSED = {
    "logit scale": with_logits(lambda logits: 1.02 * logits),
    "soft-cap": with_logits(lambda logits: 0.5 * torch.tanh(logits / 0.5)),
    "head bias": head_bias,
    "dropped mask": dropped_mask,
    "dropout": dropout,
    "gradients of another scale": gradients_of_another_scale,
    "stretched positions": stretched_positions,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", ["llama", "qwen3", "phi4_mini", "smollm3"])
def test_a_right_family_passes_and_keeps_its_own_network(family, dtype, tmp_path):
    policy = random_policy(family, tmp_path, dtype)
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    for merged in (True, False):
        self_test(policy, merged)
        assert isinstance(decoder_of(policy, merged), RolloutNetwork)
    assert all(torch.equal(value, policy.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused(name, dtype, tmp_path, monkeypatch):
    policy = random_policy("llama", tmp_path, dtype)
    REFUSED[name](policy, monkeypatch)
    with pytest.raises(UserError, match="LlamaForCausalLM is not supported: in a test at load") as error:
        self_test(policy, merged=True)
    assert "\n" not in str(error.value)


NETWORKS = {
    "one layer without rotary": lambda layer: replace(layer, rotary=False),
    "swapped norms": lambda layer: replace(layer, attention_norm=layer.mlp_norm, mlp_norm=layer.attention_norm),
    "attention scale": lambda layer: replace(layer, kind=replace(layer.kind, scale=1.2 * layer.kind.scale)),
    "norm of queries left out": lambda layer: replace(layer, q_norm=None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_wrong_network_is_thrown_out(name, dtype, tmp_path, monkeypatch):
    policy = random_policy("qwen3", tmp_path, dtype)
    original = policy_decoder.rollout_network

    def broken(*args):
        network = original(*args)
        network.layers = [*network.layers[:-1], NETWORKS[name](network.layers[-1])]
        return network

    monkeypatch.setattr(policy_decoder, "rollout_network", broken)
    self_test(policy, merged=True)  # through transformers it is right
    assert isinstance(decoder_of(policy, merged=True), ThroughTransformers)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scaled", ["embed_tokens", "mlp"])
def test_a_model_that_scales_what_the_network_does_not_goes_through_transformers(scaled, dtype, tmp_path):
    """In 16 bits 2% are below rounding; in float32 they are not."""
    policy = random_policy("llama", tmp_path, dtype)
    decoder = policy.model.get_base_model().get_decoder()
    (decoder.embed_tokens if scaled == "embed_tokens" else decoder.layers[1].mlp).register_forward_hook(
        lambda module, args, out: 1.02 * out
    )
    self_test(policy, merged=True)
    assert isinstance(decoder_of(policy, merged=True), ThroughTransformers)


def test_adapters_of_another_scale_in_the_rollout_are_caught(tmp_path, monkeypatch):
    policy = random_policy("llama", tmp_path)
    other_adapters(policy, monkeypatch)
    self_test(policy, merged=True)
    assert isinstance(decoder_of(policy, merged=True), ThroughTransformers)


def test_sequences_may_exceed_a_window_that_the_attention_function_is_told_of(tmp_path, monkeypatch):
    policy = random_policy("mistral", tmp_path, **WINDOWS)
    with pytest.raises(UserError, match="more than the 12 that"):
        policy.refuse_longer(13)
    self_test(policy, merged=True)
    policy.refuse_longer(13)


def test_where_windows_are_not_carried_sequences_within_them_still_train(tmp_path, monkeypatch):
    policy = random_policy("mistral", tmp_path, **WINDOWS)
    monkeypatch.setattr("rl_lightning.policy.attention._kind", lambda m, s: AttentionKind(s["scaling"]))
    self_test(policy, merged=True)
    assert not policy.beyond_window
    with pytest.raises(UserError, match="more than the 12 that"):
        policy.refuse_longer(13)
