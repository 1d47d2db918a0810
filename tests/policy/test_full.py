"""A policy whose weights are all trained: what is refused, what is trained, in which precision, and what is saved."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from transformers import AutoModelForCausalLM

from rl_lightning.memory import StepShape, gpu_of_size, make_plan
from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.policy.short_copy import short_copy
from rl_lightning.rollout import LocalEngine, Sampling
from rl_lightning.rollout.policy_decoder import RolloutNetwork, Shared, ThroughTransformers, decoder_of
from rl_lightning.rollout.self_test import TOLERANCE, WINDOW, measure, self_test
from rl_lightning.types import UserError
from tests.conftest import generate
from tests.random_models import random_model

CPU = torch.device("cpu")


def full_policy(name="tiny", dtype="float32", **settings) -> Policy:
    measures_kl = settings.pop("measures_kl", False)
    return Policy(PolicyConfig(str(name), "none", dtype, lora_r=0, **settings), CPU, measures_kl=measures_kl)


def train(policy: Policy, rate: float, generator: torch.Generator) -> None:
    """One update of random size."""
    for parameter in policy.trained_parameters():
        parameter.data += rate * torch.randn(parameter.shape, generator=generator)
    policy.weights_changed()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantization": "nf4"}, "policy.quantization: 'nf4' is not allowed; it must be none where lora_r is 0"),
        ({"adapter": "somewhere"}, "policy.adapter: 'somewhere' is not allowed; it must be null where lora_r is 0"),
        ({"lora_target_modules": ["q_proj"]}, "policy.lora_target_modules: .* must be null where lora_r is 0"),
        ({"use_rslora": True}, "policy.use_rslora: True is not allowed; it must be false where lora_r is 0"),
        ({"init_lora_weights": "gaussian"}, "policy.init_lora_weights: 'gaussian' .* must be true where lora_r is 0"),
        ({"lora_alpha": 16}, "policy.lora_alpha: 16 is not allowed; it must be 32 where lora_r is 0"),
        ({"rollout_weights": "unmerged"}, "policy.rollout_weights: 'unmerged' .* must be auto where lora_r is 0"),
        ({"reference": "adapter"}, "policy.reference: 'adapter' is not allowed; it must be base"),
        ({"lora_r": -1}, "policy.lora_r: -1 is not allowed; it must be at least 1, or 0 to train all weights"),
    ],
)
def test_what_makes_no_sense_without_adapters_is_one_line(settings, message):
    with pytest.raises(UserError, match=message) as caught:
        PolicyConfig(**{"quantization": "none", "lora_r": 0} | settings)
    assert "\n" not in str(caught.value)


def test_weights_that_are_stored_quantised_are_refused_before_they_are_loaded():
    config = PolicyConfig("openai/gpt-oss-20b", "none", lora_r=0)
    with pytest.raises(UserError, match="'openai/gpt-oss-20b' is stored quantised by mxfp4, and lora_r 0 trains all"):
        make_plan(config, StepShape(8, 8, 512, 512), "auto", "auto", gpu_of_size(80), LocalEngine())


@pytest.mark.parametrize(("family", "dtype"), [("qwen3", "float32"), ("qwen3", "float16"), ("opt", "bfloat16")])
def test_every_weight_is_trained_in_float32(family, dtype, tmp_path):
    """Embedding, head and learned positions too; and in 16 bits the model is what the masters round to."""
    policy = full_policy(random_model(family, tmp_path, tie_word_embeddings=family == "opt"), dtype)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / family, dtype=torch.float32)
    expected = dict(plain.named_parameters())
    trained = dict(zip(expected, policy.trained_parameters(), strict=True))
    assert all(torch.equal(trained[name], expected[name]) for name in expected)
    assert {p.dtype for p in policy.model.parameters()} == {getattr(torch, dtype)}
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        train(policy, 1e-4, generator)
    for name, weight in trained.items():
        assert not torch.equal(weight, expected[name])
        assert torch.equal(policy.model.get_parameter(name), weight.to(policy.compute_dtype))
    assert policy.moved_rms() == pytest.approx(1e-4 * 3**0.5, rel=0.05)


def test_updates_that_16_bits_would_lose_add_up():
    policy = full_policy(dtype="bfloat16")
    master, weight = policy.trained_parameters()[-1], policy.model.get_parameter("model.norm.weight")
    start = master.detach().clone()
    for _ in range(100):
        master.data *= 1 + 2e-4  # a bfloat16 changes by 4e-3 at least
        policy.weights_changed()
    assert torch.allclose(weight.float(), 1.0202 * start, rtol=4e-3, atol=0)


def test_gradients_of_16_bits_are_summed_in_float32(batch):
    """Of four micro-batches: as those of a float32 model but for the rounding of one micro-batch's."""
    exact, rounded = full_policy(), full_policy(dtype="bfloat16")
    rollout = generate(exact, batch, Sampling(4, 12))
    sums = []
    for policy in (exact, rounded):
        for rows in torch.arange(24).split(6):
            for micro in pack(rollout, rows, 10_000):
                policy.log_probs(micro, 1.0)[0].sum().backward()
        sums.append(torch.cat([p.grad.flatten() for p in policy.trained_parameters()]))
    assert sums[1].dtype == torch.float32
    assert (sums[1] - sums[0]).norm() < 0.05 * sums[0].norm()
    assert all(p.grad is None for p in rounded.model.parameters())
    rounded.zero_grad()
    assert all(p.grad is None for p in rounded.trained_parameters())


@pytest.mark.parametrize("family", ["qwen3", "gemma2", "opt"])
def test_the_self_test_compares_all_gradients(family, tmp_path):
    policy = full_policy(random_model(family, tmp_path))
    short = short_copy(policy, CPU, WINDOW)
    assert len(short.trained_parameters()) == len(policy.trained_parameters())
    assert measure(short, merged=True).worst[0] < TOLERANCE / 10
    self_test(policy, merged=True)
    assert policy.trained_parameters()[0].grad is None


def test_the_self_test_sees_a_wrong_gradient_of_the_head(monkeypatch):
    from rl_lightning.policy import logprobs

    right = logprobs._head_gradient
    monkeypatch.setattr(logprobs, "_head_gradient", lambda *args, **more: 1.1 * right(*args, **more))
    with pytest.raises(UserError, match="its gradients are .* off transformers' own"):
        self_test(full_policy(), merged=True)


@pytest.mark.parametrize(
    ("family", "config", "dtype"),
    [
        ("qwen2", {"tie_word_embeddings": True}, "bfloat16"),
        ("qwen3", {"tie_word_embeddings": False, "attention_bias": True}, "float32"),
        ("phi4_mini", {}, "float32"),
        ("gemma2", {}, "float32"),
        ("opt", {"max_position_embeddings": 512}, "bfloat16"),
    ],
)
def test_a_rollout_after_an_update_is_of_the_new_weights(family, config, dtype, batch, tmp_path, caplog):
    """By the network that was made before it; norms, biases, embeddings, positions and head included."""
    policy = full_policy(random_model(family, tmp_path, **config), dtype)
    engine, generator = LocalEngine(), torch.Generator().manual_seed(0)
    with caplog.at_level(logging.ERROR):
        engine.start(policy)
    assert isinstance(engine.decoder, ThroughTransformers if family in ("gemma2", "opt") else RolloutNetwork)
    draws = torch.rand(12, 10, generator=generator, dtype=torch.float64)
    for _ in range(2):
        train(policy, 0.1, generator)
        engine.sync_weights()
        rollout = engine.generate(batch, Sampling(2, 10), draws)
        (micro,) = pack(rollout, torch.arange(12), 10_000)
        with torch.no_grad():
            ours = policy.log_probs(micro, 1.0)[0]
        difference = (ours - rollout.sampling_logps[micro.row_of, micro.column_of]).abs().mean()
        assert difference < (1e-5 if dtype == "float32" else 0.05)


def test_rollouts_share_the_storage_of_the_trained_weights():
    policy = full_policy()
    network = decoder_of(policy, merged=True)
    products = [p for layer in network.layers for p in (layer.qkv, layer.out, layer.gate_up, layer.down)]
    assert all(isinstance(product, Shared) for product in products)
    held = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    assert {p.weight.untyped_storage().data_ptr() for p in products} <= held
    other = decoder_of(policy, merged=True)  # which takes the weights over
    train(policy, 0.1, torch.Generator())
    network.refresh()
    ids = torch.arange(5)[None]
    from rl_lightning.rollout.network import attend_whole_rows

    for each in (network, other):
        each.refresh()
        each.set_max_length(8)
        with torch.no_grad():
            hidden = each(ids, ids, attend_whole_rows)
            theirs = policy.base.get_decoder()(input_ids=ids).last_hidden_state
        assert torch.allclose(hidden, theirs, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reference_is_the_model_as_it_was(dtype, batch):
    policy = full_policy(dtype=dtype, measures_kl=True)
    rollout = generate(policy, batch, Sampling(2, 8))
    (micro,) = pack(rollout, torch.arange(12), 10_000)
    before = policy.log_probs(micro, 1.0)[0].detach()
    train(policy, 0.05, torch.Generator().manual_seed(0))
    now, _ = policy.log_probs(micro, 1.0)
    assert torch.equal(policy.reference_log_probs(micro, 1.0), before)
    assert not torch.allclose(now, before, atol=0.1)
    now.sum().backward()  # through the weights as they are now, though the reference's were in their place since
    ours = [p.grad.clone() for p in policy.trained_parameters()]
    policy.zero_grad()
    policy.log_probs(micro, 1.0)[0].sum().backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(ours, policy.trained_parameters(), strict=True))
    assert not full_policy(dtype=dtype)._reference


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_saved_loads_with_plain_transformers_and_back(dtype, tied, tmp_path):
    directory = random_model("qwen2", tmp_path, tie_word_embeddings=tied)
    policy = full_policy(directory, dtype)
    decoder_of(policy, merged=True)  # which takes the weights over
    train(policy, 0.05, torch.Generator().manual_seed(0))
    policy.save(tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert plain.dtype == policy.compute_dtype
    ids = torch.tensor([[5, 9, 3, 20, 7]])
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, policy.model(ids).logits, atol=1e-5 if dtype == "float32" else 0.05)
    saved = sum(file.stat().st_size for file in (tmp_path / "saved").glob("*.safetensors"))
    assert saved == pytest.approx(4 * sum(p.numel() for p in policy.trained_parameters()), rel=0.1)  # once, in float32
    other = full_policy(directory, dtype)
    other.load(tmp_path / "saved")
    for a, b in zip(other.trained_parameters(), policy.trained_parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(a, b) for a, b in zip(other.model.parameters(), policy.model.parameters(), strict=True))
    assert "auto_map" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    with pytest.raises(UserError, match="the checkpoint's weights do not fit this model: .* the first is model.embed"):
        full_policy("tiny").load(tmp_path / "saved")
