"""A model whose layers are on several cards computes to the last bit what it computes on one; tried with virtual cards on a CPU."""

from __future__ import annotations

from collections import Counter
from functools import partial

import accelerate
import pytest
import torch

from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.policy.placement import (
    connect,
    device_map,
    disconnect,
    remove_dispatch_hooks,
    replica_devices,
    stages,
)
from rl_lightning.rollout import Sampling
from rl_lightning.rollout.policy_decoder import RolloutNetwork, decoder_of
from rl_lightning.rollout.self_test import self_test
from rl_lightning.types import UserError
from tests.conftest import generate, shake
from tests.random_models import random_policy
from tests.virtual_cards import MixedCards, card, virtual_cards

CPU = torch.device("cpu")
MODELS = {
    "qwen3": {"num_hidden_layers": 3, "max_position_embeddings": 256},
    "gemma2": {"num_hidden_layers": 3, "head_dim": 8, "sliding_window": 64},
}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """The tiny policy, Qwen3 for the own network, and Gemma 2 through transformers, with windows and its own attention."""
    made = {"tiny": "tiny"}
    for family, config in MODELS.items():
        made[family] = random_policy(family, tmp_path_factory.mktemp("models"), **config).config.model_name_or_path
    return made


def load(config: PolicyConfig, layers_by_card: tuple[int, ...]) -> Policy:
    devices = [card(number) for number, layers in enumerate(layers_by_card) for _ in range(layers)]
    policy = Policy(config, CPU, layer_devices=devices if len(layers_by_card) > 1 else None)
    shake(policy, 0.05)
    return policy


def step(policy: Policy, batch) -> list[torch.Tensor]:
    """Completions with their log-probs, greedy ones, log-probs of the update and of the reference, gradients."""
    rollout = generate(policy, batch, Sampling(2, 10, temperature=1.3, max_rollout_rows=5))
    greedy = generate(policy, batch, Sampling(2, 6))
    found = [rollout.completion_ids, rollout.sampling_logps, greedy.completion_ids]
    for micro in pack(rollout, torch.arange(len(rollout.texts)), 300):
        logps, entropy = policy.log_probs(micro, 1.3, entropy_gradient=True)
        found += [logps.detach(), policy.reference_log_probs(micro, 1.3)]
        (logps.sum() + entropy.sum()).backward()
    return found + [parameter.grad for parameter in policy.trained_parameters()]


@pytest.mark.parametrize(
    ("model", "quantization", "layers", "config"),
    [
        ("tiny", "nf4", (3, 1), {}),
        ("tiny", "none", (1, 1, 2), {"gradient_checkpointing": "on"}),
        ("qwen3", "none", (2, 1), {"gradient_checkpointing": "on"}),
        ("qwen3", "nf4", (1, 1, 1), {}),
        ("gemma2", "none", (1, 2), {"dtype": "bfloat16"}),
        ("gemma2", "nf4", (1, 1, 1), {"gradient_checkpointing": "on"}),
    ],
)
def test_several_cards_change_no_bit(model, quantization, layers, config, directories, batch, monkeypatch):
    config = PolicyConfig(directories[model], quantization, **config)
    on_one = step(load(config, (sum(layers),)), batch)
    with virtual_cards(monkeypatch) as cards:
        policy = load(config, layers)
        assert isinstance(decoder_of(policy, merged=True), RolloutNetwork) == (model != "gemma2")
        self_test(policy, merged=False)
        on_several = step(policy, batch)
        used = {cards.of(parameter) for parameter in policy.model.parameters()}
        assert used == {cards.of(gradient) for gradient in on_several[-len(policy.trained_parameters()) :]}
    assert used == set(range(len(layers)))
    for ours, theirs in zip(on_several, on_one, strict=True):
        assert torch.equal(ours, theirs)


def test_what_all_layers_are_given_moves_once_to_each_card(batch, monkeypatch):
    with virtual_cards(monkeypatch) as cards:
        policy = load(PolicyConfig("tiny", "none"), (1, 2, 1))
        (micro,) = pack(generate(policy, batch, Sampling(2, 10)), torch.arange(12), 10_000)
        cards.copies.clear()
        policy.log_probs(micro, 1.0)[0].sum().backward()
        tokens, width = len(micro.input_ids), policy.model.config.hidden_size
        hidden = {(a, b): cards.copies.pop((a, b, (1, tokens, width))) for a, b in ((0, 1), (1, 2), (2, 0))}
        back = {(b, a): cards.copies.pop((b, a, (1, tokens, width))) for a, b in ((0, 1), (1, 2), (2, 0))}
    assert set(hidden.values()) | set(back.values()) == {1}
    shapes = [tuple(block.shape) for block in micro.rows.blocks]
    given = Counter([*shapes, (tokens,), (1, 1, 1, 1)])  # rows and their slots, and the placeholder of a mask
    for number in (1, 2):
        found = {shape: count for (a, b, shape), count in cards.copies.items() if (a, b) == (0, number)}
        rotary = [shape for shape in found if shape[:2] == (1, tokens)]  # cosines and sines, and positions
        assert {shape: count for shape, count in found.items() if shape not in rotary} == given
        assert sorted(found[shape] for shape in rotary) == [1, 2]
    assert all(a == 0 for a, b, _ in cards.copies)


@pytest.mark.parametrize("forgotten", ["hidden states", "rows"])
def test_a_forgotten_transfer_does_not_pass(forgotten, batch, monkeypatch):
    with virtual_cards(monkeypatch):
        policy = load(PolicyConfig("tiny", "none"), (2, 2))
        (micro,) = pack(generate(policy, batch, Sampling(2, 10)), torch.arange(12), 10_000)
        layers = policy.model.get_base_model().model.layers
        if forgotten == "rows":
            layers[2]._forward_pre_hooks.popitem()
        else:
            disconnect(layers)
        with pytest.raises(MixedCards):
            policy.log_probs(micro, 1.0)


def test_virtual_cards_tell_what_cuda_would_refuse(monkeypatch):
    with virtual_cards(monkeypatch) as cards:
        here, there = torch.ones(3, device=card(0)), torch.ones(3, requires_grad=True).to(card(1))
        assert (here.device, there.device) == (card(0), card(1))
        assert torch.zeros(2, device=there.device).device == there.new_ones(2).device == card(1)
        doubled = there * torch.tensor(2.0) + there[:1]  # a number of the host
        assert doubled.device == doubled.view(3, 1).detach().device == card(1)
        for mixed in (lambda: here + there, lambda: torch.cat([here, there]), lambda: there * here.sum()):
            with pytest.raises(MixedCards):
                mixed()
        doubled.sum().backward()
        here.copy_(there.detach())
        moved = there.detach().to(card(0))
        assert cards.of(moved) == 0
        assert moved.data_ptr() != there.data_ptr()


def test_a_policy_on_several_cards_stays_there(monkeypatch):
    """Lightning moves a whole module to the trainer's device at the start, and to the CPU at the end."""
    with virtual_cards(monkeypatch) as cards:
        policy = load(PolicyConfig("tiny", "none"), (2, 2))
        before = [cards.of(parameter) for parameter in policy.parameters()]
        torch.nn.ModuleList([policy]).to(CPU)
        assert [cards.of(parameter) for parameter in policy.parameters()] == before
        assert policy.moved_rms() > 0


def test_one_device_has_no_hooks(policy):
    layers = policy.model.get_base_model().model.layers
    connect(layers, [CPU] * len(layers))
    assert not any(layer._forward_pre_hooks or layer._forward_hooks for layer in layers)
    assert [(stage.device, stage.layers) for stage in stages([CPU] * 3)] == [(CPU, range(3))]


def test_the_device_map_names_the_layers_that_are_elsewhere(policy):
    devices = [card(0), card(0), card(1), card(2)]
    expected = {"": card(0), "model.layers.2": card(1), "model.layers.3": card(2)}
    assert device_map(policy.model.config, devices) == expected


def test_nothing_is_left_of_accelerates_hooks(directories):
    base = random_base(directories)
    before = [(name, set(vars(module))) for name, module in base.named_modules()]
    accelerate.dispatch_model(base, {"": "cpu"}, force_hooks=True)
    assert "forward" in vars(base)
    remove_dispatch_hooks(base)
    after = [(name, set(vars(module)) - {"hf_device_map"}) for name, module in base.named_modules()]
    assert after == before


def random_base(directories):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directories["qwen3"])


def test_too_few_devices_are_refused_in_a_line(monkeypatch):
    with pytest.raises(UserError, match="policy.devices_per_replica: 2 is not allowed; it must be 1 on a CPU"):
        replica_devices(CPU, 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert replica_devices(torch.device("cuda", 2), 2) == [torch.device("cuda", 2), torch.device("cuda", 3)]
    with pytest.raises(UserError, match="it must be at most 2, the number of GPUs from cuda:2 on"):
        replica_devices(torch.device("cuda", 2), 3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_two_gpus_compute_what_one_does(quantization, directories, batch):
    """What virtual cards cannot show: from_pretrained's device map, kernels of two GPUs, and copies between them."""
    config, load_on = PolicyConfig(directories["qwen3"], quantization), partial(torch.device, "cuda")
    found = []
    for devices in (None, [load_on(0), load_on(0), load_on(1)]):
        policy = Policy(config, load_on(0), layer_devices=devices)
        shake(policy, 0.05)
        assert {p.device for p in policy.parameters()} == set(policy.layer_devices)
        rollout = generate(policy, batch.to(load_on(0)), Sampling(2, 10))
        (micro,) = pack(rollout, torch.arange(12, device=load_on(0)), 10_000)
        policy.log_probs(micro, 1.0)[0].sum().backward()
        found.append([rollout.completion_ids, *(p.grad for p in policy.trained_parameters())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two.cpu(), one.cpu())
