"""The update's memory with the reference model's forward pass, and with keys that are repeated for every query head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config, Qwen3Config

from rl_lightning.memory import Device, PlannedSettings, StepShape, make_plan
from rl_lightning.memory.phases import predict
from rl_lightning.policy import PolicyConfig, attention, pack
from rl_lightning.rollout import LocalEngine
from tests.memory.test_plan import COMPUTER, ENGINE, STEP, comes_and_goes, full_length, peak_bytes, policy_of

SIZES = {"hidden_size": 128, "num_key_value_heads": 1, "eos_token_id": 2, "vocab_size": 640}
WIDE_MLP = Qwen2Config(intermediate_size=2048, num_hidden_layers=1, num_attention_heads=4, **SIZES)
SHARED = Qwen2Config(intermediate_size=256, num_hidden_layers=3, num_attention_heads=8, **SIZES)
WIDE_HEADS = Qwen3Config(intermediate_size=256, num_hidden_layers=3, num_attention_heads=8, head_dim=64, **SIZES)
SMALL = StepShape(prompts=2, group=4, prompt_tokens=32, new_tokens=96)


def predicted_and_measured(
    config, directory, with_reference: bool, checkpointing: str, **changes
) -> tuple[float, float]:
    settings = {"quantization": "none", "dtype": "float32", "gradient_checkpointing": checkpointing}
    policy, model = policy_of(config, directory, **settings)
    (micro,) = pack(full_length(SMALL), torch.arange(SMALL.rows), 10**6)

    def update():
        logps, _ = policy.log_probs(micro, 1.0)
        reference = policy.reference_log_probs(micro, 1.0) if with_reference else 0.0
        (logps - reference).sum().backward()

    update()
    model = replace(model, shape=replace(model.shape, **changes), measures_kl=with_reference)
    settings = PlannedSettings(10**6, 8, checkpointing == "on", merged=False)
    return comes_and_goes(predict(model, SMALL, settings, COMPUTER, ENGINE)["update"]), peak_bytes(update)


@pytest.mark.parametrize(("config", "checkpointing"), [(WIDE_MLP, "off"), (SHARED, "off"), (SHARED, "on")])
def test_the_reference_forward_is_in_the_plan(config, checkpointing, tmp_path):
    """In the first of these it decides the peak."""
    predicted, measured = predicted_and_measured(config, tmp_path, True, checkpointing)
    assert predicted == pytest.approx(measured, rel=0.1)


def test_a_plan_with_a_kl_term_counts_it():
    config = PolicyConfig("Qwen/Qwen2.5-0.5B-Instruct", gradient_checkpointing="off")
    peaks = [
        sum(make_plan(config, STEP, 2048, 64, Device("", "cuda", 24e9), LocalEngine(), kl).phases["update"].values())
        for kl in (False, True)
    ]
    assert peaks[1] >= peaks[0]


@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_repeated_keys_are_in_the_plan(checkpointing, tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "attention_kernel", lambda *args: "repeated")
    predicted, measured = predicted_and_measured(WIDE_HEADS, tmp_path, False, checkpointing, repeats_keys=True)
    assert predicted == pytest.approx(measured, rel=0.1)
