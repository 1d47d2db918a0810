"""The update's memory with the reference model's forward pass, with an entropy bonus, with a wide MLP, and with keys that are
repeated for every query head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config, Qwen3Config

from rl_lightning.memory import Device, LossTerms, PlannedSettings, StepShape, make_plan
from rl_lightning.memory.phases import predict
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.policy import PolicyConfig, attention, pack
from rl_lightning.rollout import LocalEngine, Sampling
from tests.memory.test_plan import (
    COMPUTER,
    DEEP,
    ENGINE,
    STEP,
    WIDE_HEAD,
    comes_and_goes,
    full_length,
    peak_bytes,
    policy_of,
)

SIZES = {"hidden_size": 128, "num_key_value_heads": 1, "eos_token_id": 2, "vocab_size": 640}
WIDE_MLP = Qwen2Config(intermediate_size=2048, num_hidden_layers=1, num_attention_heads=4, **SIZES)
WIDE = Qwen2Config(intermediate_size=1024, num_hidden_layers=1, num_attention_heads=4, **{**SIZES, "hidden_size": 512})
SHARED = Qwen2Config(intermediate_size=256, num_hidden_layers=3, num_attention_heads=8, **SIZES)
WIDE_HEADS = Qwen3Config(intermediate_size=256, num_hidden_layers=3, num_attention_heads=8, head_dim=64, **SIZES)
SMALL = StepShape(prompts=2, group=4, prompt_tokens=32, new_tokens=96)


def predicted_and_measured(
    config,
    directory,
    with_reference: bool,
    checkpointing: str,
    dtype="float32",
    entropy=False,
    rank=16,
    **changes,
) -> tuple[float, float]:
    settings = {"quantization": "none", "dtype": dtype, "gradient_checkpointing": checkpointing, "lora_r": rank}
    policy, model = policy_of(config, directory, **settings)
    (micro,) = pack(full_length(SMALL), torch.arange(SMALL.rows), 10**6)

    def update():
        logps, entropies = policy.log_probs(micro, 1.0, entropy)
        reference = policy.reference_log_probs(micro, 1.0) if with_reference else 0.0
        (logps - reference + entropies * entropy).sum().backward()

    update()
    shape = replace(model.shape, **changes)
    model = replace(model, shape=shape, rank=rank, terms=LossTerms(with_reference, entropy))
    settings = PlannedSettings(10**6, 8, checkpointing == "on", merged=False)
    return comes_and_goes(predict(model, SMALL, settings, COMPUTER, ENGINE)["update"]), peak_bytes(update)


@pytest.mark.parametrize(("config", "checkpointing"), [(WIDE_MLP, "off"), (SHARED, "off"), (SHARED, "on")])
def test_the_reference_forward_is_in_the_plan(config, checkpointing, tmp_path):
    """In the first of these it decides the peak."""
    predicted, measured = predicted_and_measured(config, tmp_path, True, checkpointing)
    assert predicted == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_a_wide_mlp_is_in_the_plan(checkpointing, dtype, tmp_path):
    """The gradients of its product and of both factors are there at once."""
    predicted, measured = predicted_and_measured(WIDE_MLP, tmp_path, False, checkpointing, dtype)
    assert predicted == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("config", "checkpointing", "rank"),
    [(WIDE_HEAD, "on", 16), (WIDE_HEAD, "off", 16), (WIDE, "on", 16), (DEEP, "off", 16), (WIDE_HEAD, "on", 0)],
)
def test_an_entropy_bonus_is_in_the_plan(config, checkpointing, rank, dtype, tmp_path):
    """With a wide head its product of logits and exponentials decides, with wide hidden states its gradient's terms."""
    predicted, measured = predicted_and_measured(config, tmp_path, False, checkpointing, dtype, True, rank)
    assert predicted == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("term", ["kl", "entropy"])
def test_a_plan_counts_the_terms_of_the_loss(term):
    config = PolicyConfig("Qwen/Qwen2.5-0.5B-Instruct", gradient_checkpointing="off")
    device, engine = Device("", "cuda", 24e9), LocalEngine()
    plans = [make_plan(config, STEP, 2048, 64, device, engine, LossTerms(**{term: there})) for there in (False, True)]
    without, with_it = (sum(plan.phases["update"].values()) for plan in plans)
    assert with_it >= without + (term == "entropy")


@pytest.mark.parametrize(("bonus", "there"), [(0.0, False), (0.01, True)])
def test_a_module_tells_its_plan_of_an_entropy_bonus(bonus, there):
    assert GRPOModule(PolicyConfig("tiny"), Sampling(), Objective(entropy_bonus=bonus)).terms.entropy is there


@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_repeated_keys_are_in_the_plan(checkpointing, tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "attention_kernel", lambda *args: "repeated")
    predicted, measured = predicted_and_measured(WIDE_HEADS, tmp_path, False, checkpointing, repeats_keys=True)
    assert predicted == pytest.approx(measured, rel=0.1)
