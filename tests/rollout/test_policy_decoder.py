"""What rollouts run on against transformers' forward of the layers that are trained."""

from __future__ import annotations

import logging
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rl_lightning.policy import Policy, PolicyConfig, products
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.policy.lora import dithered
from rl_lightning.rollout import Sampling
from rl_lightning.rollout.decode import sample_groups
from rl_lightning.rollout.network import Network, attend_whole_rows
from rl_lightning.rollout.policy_decoder import RolloutNetwork, ThroughTransformers, decoder_of
from rl_lightning.rollout.probe import probe
from rl_lightning.rollout.sampling import draw_uniforms
from rl_lightning.types import Rollout
from tests.conftest import generate, shake
from tests.random_models import random_policy

CPU = torch.device("cpu")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
FAMILIES = {"gpt_neox": "GPTNeoXForCausalLM", "gemma": "GemmaForCausalLM"}


def hidden(policy: Policy, decoder: RolloutNetwork) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, 6, H) of the rollout network and of the trained layers."""
    decoder.refresh()
    decoder.set_max_length(6)
    with torch.no_grad():
        with decoder.ready():
            ours = decoder(IDS, torch.arange(6)[None], attend_whole_rows)
        with policy.autocast():
            theirs = policy.model.get_base_model().get_decoder()(input_ids=IDS).last_hidden_state
    return ours, theirs


def test_a_merged_copy_in_bfloat16_loses_nothing_of_an_adapter_on_average():
    generator = torch.Generator().manual_seed(0)
    base = (0.03 * torch.randn(300, 200, generator=generator)).bfloat16()
    assert torch.equal(dithered(base.float(), torch.bfloat16), base.float()), "what needs no rounding stays as it is"
    for size in (1e-6, 1e-5, 1e-4):
        delta = size * torch.randn(300, 200, generator=generator)
        exact = base.float() + delta
        copies = {"nearest": exact.bfloat16().float(), "dithered": dithered(exact.clone(), torch.bfloat16)}
        assert torch.equal(copies["dithered"], copies["dithered"].bfloat16().float()), "bfloat16 holds it"
        steps = (copies["dithered"] - exact).abs() / exact.abs()
        assert float(steps.max()) < 2**-7, "to one of the two neighbours"
        kept = {
            name: float(((each - base.float()) * delta).sum() / delta.square().sum()) for name, each in copies.items()
        }
        assert kept["nearest"] < 0.8 or size == 1e-4
        assert 0.9 < kept["dithered"] < 1.1
    assert torch.equal(dithered(exact.clone(), torch.float32), exact)


def test_a_merged_copy_follows_a_first_small_update(batch):
    policy = Policy(PolicyConfig("tiny", "none", dtype="bfloat16"), CPU)
    decoder = decoder_of(policy, merged=True)
    product = decoder.layers[0].down
    before = product.weight.clone()
    shake(policy, scale=1e-4)
    decoder.refresh()
    delta = product.layers[0].get_delta_weight("default")
    kept = ((product.weight - before).float() * delta).sum() / delta.square().sum()
    assert 0.8 < float(kept) < 1.2


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("merged", [True, False])
def test_the_network_gives_the_trained_layers_states_and_follows_them(quantization, merged):
    policy = Policy(PolicyConfig("tiny", quantization), CPU)
    decoder = decoder_of(policy, merged)
    assert isinstance(decoder, RolloutNetwork)
    shake(policy)
    before, trained = hidden(policy, decoder)
    assert torch.allclose(before, trained, atol=2e-5)
    shake(policy, scale=0.05)
    after, trained = hidden(policy, decoder)
    assert torch.allclose(after, trained, atol=2e-5)
    assert not torch.allclose(after, before, atol=0.1)


@pytest.mark.parametrize("merged", [True, False])
def test_in_16_bits_the_network_is_as_near_as_the_rounding(merged):
    policy = Policy(PolicyConfig("tiny", dtype="bfloat16"), CPU)
    decoder = decoder_of(policy, merged)
    shake(policy)
    ours, theirs = hidden(policy, decoder)
    assert ours.dtype == torch.bfloat16
    ours, theirs = ((x @ decoder.head.weight.T).float().log_softmax(-1) for x in (ours, theirs))
    assert (ours.exp() * (ours - theirs)).sum(-1).max() < 0.01  # nats


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "phi3", "phi4_mini", "smollm3"])
@pytest.mark.parametrize("merged", [True, False])
def test_every_family_of_the_shape_is_written_out_exactly(family, merged, tmp_path):
    policy = random_policy(family, tmp_path)
    network = decoder_of(policy, merged)
    assert isinstance(network, RolloutNetwork)
    ours, theirs = hidden(policy, network)
    assert torch.allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("family", ["gemma", "olmo2", "cohere", "gemma3_text"])
@pytest.mark.parametrize("merged", [True, False])
def test_another_architecture_is_not_taken_for_rounding_in_16_bits(family, merged, tmp_path):
    assert isinstance(decoder_of(random_policy(family, tmp_path, "bfloat16"), merged), ThroughTransformers)


@pytest.mark.parametrize("family", ["gpt_neox", "gemma"])
def test_a_model_of_another_shape_samples_through_transformers(family, tmp_path, batch, caplog):
    """GPT-NeoX has other parts; Gemma the same with other norms, which only its numbers show."""
    policy = random_policy(family, tmp_path)
    with caplog.at_level(logging.WARNING):
        decoder = decoder_of(policy, merged=True)
    assert isinstance(decoder, ThroughTransformers)
    assert f"{FAMILIES[family]} is sampled by transformers' own forward" in caplog.text
    ours, theirs = hidden(policy, decoder)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert generate(policy, batch, Sampling(2, 5)).completion_ids.shape == (12, 5)


@pytest.mark.parametrize("merged", [True, False])
def test_rounding_in_16_bits_is_not_taken_for_another_model(merged, tmp_path):
    """Norms as trained models have them: weights far from 1, and a last one that scales its input up by 8."""
    directory = tmp_path / "loud"
    shutil.copytree(EMBEDDED["tiny"], directory)
    tensors, generator = load_file(directory / "model.safetensors"), torch.Generator().manual_seed(0)
    for name in tensors:
        if name.endswith("norm.weight"):
            loud = 8 if name == "model.norm.weight" else 1
            tensors[name] = tensors[name] * loud * (1 + 0.3 * torch.randn(tensors[name].shape, generator=generator))
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    policy = Policy(PolicyConfig(str(directory), dtype="bfloat16"), CPU)
    assert isinstance(decoder_of(policy, merged), RolloutNetwork)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize(("scale", "written_out"), [(1.0, True), (1.2, False)])
def test_a_token_with_one_huge_element_hides_neither_a_right_network_nor_a_wrong_one(
    merged, scale, written_out, monkeypatch
):
    """As trained models have them: one rounding of that element is more than what a layer adds."""
    policy = Policy(PolicyConfig("tiny", dtype="bfloat16"), CPU)
    policy.base.get_input_embeddings().weight.data[probe(policy).ids[0, 0], 0] = 30_000
    mlp, add_layer = Network._mlp, Network.add_layer

    def rounded_otherwise(self: Network, number: int, x: torch.Tensor, *rest: Any) -> None:
        add_layer(self, number, x, *rest)
        x[0, 0, 0] += 128

    monkeypatch.setattr(Network, "add_layer", rounded_otherwise)
    monkeypatch.setattr(Network, "_mlp", lambda self, layer, x: scale * mlp(self, layer, x))
    assert isinstance(decoder_of(policy, merged), RolloutNetwork) == written_out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_packed_copy_follows_the_adapters_and_samples_the_same(dtype, batch, monkeypatch):
    policy = Policy(PolicyConfig("tiny", dtype=dtype), CPU)
    plain = decoder_of(policy, merged=True)
    with monkeypatch.context() as patch:
        patch.setattr(products, "SMALL", 0)
        patch.setattr(products, "_chosen", lambda *_, may_pack=False: "packed" if may_pack else "linear")
        packed = decoder_of(policy, merged=True)
        shake(policy)  # after the copies were made
        ours = sampled(policy, packed, batch)
    expected = sampled(policy, plain, batch)
    for theirs, ours_is in ((packed, True), (plain, False)):
        assert theirs.layers[0].qkv.weight.is_mkldnn == theirs.head.weight.is_mkldnn == ours_is
    assert not policy.head.weight.is_mkldnn, "the trainer's own is as it was"
    assert torch.equal(ours.completion_ids, expected.completion_ids)
    assert torch.allclose(ours.sampling_logps, expected.sampling_logps, atol=1e-5)


def sampled(policy: Policy, decoder: RolloutNetwork, batch) -> Rollout:
    decoder.refresh()
    draws = draw_uniforms(torch.Generator().manual_seed(0), 4 * len(batch), 32)
    with decoder.ready():
        return sample_groups(decoder, batch, Sampling(4, 32), policy.eos_token_ids, policy.decode_text, draws)


def test_dense_copy_and_4_bits_with_adapters_sample_the_same(batch):
    policy = Policy(PolicyConfig("tiny"), CPU)
    shake(policy)
    dense, adapted = (sampled(policy, decoder_of(policy, merged), batch) for merged in (True, False))
    assert torch.equal(dense.completion_ids, adapted.completion_ids)
    assert torch.allclose(dense.sampling_logps, adapted.sampling_logps, atol=1e-4)


def test_the_network_shares_what_no_adapter_changes_and_stays_out_of_the_state():
    policy = Policy(PolicyConfig("tiny"), CPU)
    before = set(policy.state_dict())
    network, base = decoder_of(policy, merged=True), policy.model.get_base_model()
    assert network.head.weight is base.lm_head.weight
    assert network.embedding is base.model.embed_tokens.weight
    assert network.layers[0].attention_norm is base.model.layers[0].input_layernorm.weight
    assert set(policy.state_dict()) == before
