"""The update's memory with the reference model's forward pass, and with keys that are repeated for every query head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import Qwen2Config, Qwen3Config

from rl_lightning.memory import Device, LossTerms, PlannedSettings, StepShape, make_plan
from rl_lightning.memory.phases import predict
from rl_lightning.policy import PolicyConfig, attention, pack
from rl_lightning.rollout import LocalEngine
from tests.memory.test_plan import COMPUTER, ENGINE, STEP, comes_and_goes, full_length, peak_bytes, policy_of

SIZES = {"hidden_size": 128, "num_key_value_heads": 1, "eos_token_id": 2, "vocab_size": 640}
WIDE_MLP = Qwen2Config(intermediate_size=2048, num_hidden_layers=1, num_attention_heads=4, **SIZES)
SHARED = Qwen2Config(intermediate_size=256, num_hidden_layers=3, num_attention_heads=8, **SIZES)
WIDE_HEADS = Qwen3Config(intermediate_size=256, num_hidden_layers=3, num_attention_heads=8, head_dim=64, **SIZES)
LARGE_HEAD = Qwen2Config(
    intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, **SIZES | {"hidden_size": 512, "vocab_size": 8192}
)
SMALL = StepShape(prompts=2, group=4, prompt_tokens=32, new_tokens=96)


def predicted_and_measured(
    config,
    directory,
    with_reference: bool,
    checkpointing: str,
    with_entropy: bool = False,
    dtype: str = "float32",
    **changes,
) -> tuple[float, float]:
    settings = {"quantization": "none", "dtype": dtype, "gradient_checkpointing": checkpointing}
    policy, model = policy_of(config, directory, **settings)
    (micro,) = pack(full_length(SMALL), torch.arange(SMALL.rows), 10**6)

    def update():
        logps, entropy = policy.log_probs(micro, 1.0, with_entropy)
        reference = policy.reference_log_probs(micro, 1.0) if with_reference else 0.0
        (logps - reference + entropy * with_entropy).sum().backward()

    update()
    model = replace(
        model, shape=replace(model.shape, **changes), terms=LossTerms(kl=with_reference, entropy=with_entropy)
    )
    settings = PlannedSettings(10**6, 8, checkpointing == "on", merged=False)
    return comes_and_goes(predict(model, SMALL, settings, COMPUTER, ENGINE)["update"]), peak_bytes(update)


@pytest.mark.parametrize(("config", "checkpointing"), [(WIDE_MLP, "off"), (SHARED, "off"), (SHARED, "on")])
def test_the_reference_forward_is_in_the_plan(config, checkpointing, tmp_path):
    """In the first of these it decides the peak."""
    predicted, measured = predicted_and_measured(config, tmp_path, True, checkpointing)
    assert predicted == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_gradient_of_an_entropy_bonus_is_in_the_plan(dtype, tmp_path):
    """In this shape the output head decides the peak."""
    predicted, measured = predicted_and_measured(LARGE_HEAD, tmp_path, False, "on", True, dtype)
    assert predicted == pytest.approx(measured, rel=0.1)
    without, _ = predicted_and_measured(LARGE_HEAD, tmp_path, False, "on", False, dtype)
    assert without < 0.85 * measured


def test_a_plan_with_a_kl_term_counts_it():
    config = PolicyConfig("Qwen/Qwen2.5-0.5B-Instruct", gradient_checkpointing="off")
    peaks = [
        sum(
            make_plan(config, STEP, 2048, 64, Device("", "cuda", 24e9), LocalEngine(), LossTerms(kl))
            .phases["update"]
            .values()
        )
        for kl in (False, True)
    ]
    assert peaks[1] >= peaks[0]


@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_repeated_keys_are_in_the_plan(checkpointing, tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "attention_kernel", lambda *args: "repeated")
    predicted, measured = predicted_and_measured(WIDE_HEADS, tmp_path, False, checkpointing, repeats_keys=True)
    assert predicted == pytest.approx(measured, rel=0.1)
