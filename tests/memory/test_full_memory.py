"""The plan of a model whose weights are all trained, against what is really held and allocated, and what it decides."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rl_lightning.memory import LossTerms, PlannedSettings, StepShape, gpu_of_size, make_plan
from rl_lightning.memory.phases import predict
from rl_lightning.memory.shapes import shape_of
from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.rollout.decode import sample_groups
from rl_lightning.rollout.policy_decoder import decoder_of
from rl_lightning.rollout.sampling import Sampling, draw_uniforms
from rl_lightning.types import Problem, PromptBatch
from tests.memory.test_plan import (
    COMPUTER,
    CPU,
    DEEP,
    ENGINE,
    MULTIMODAL,
    NORMED,
    QWEN,
    STEP,
    WIDE_HEAD,
    comes_and_goes,
    full_length,
    peak_bytes,
    policy_of,
)


def full_policy_of(config, directory, tied=False, **settings):
    config = copy.deepcopy(config)
    config.tie_word_embeddings = tied
    policy, model = policy_of(config, directory, quantization="none", lora_r=0, **settings)
    return policy, replace(model, rank=0)


@pytest.mark.parametrize(
    ("config", "dtype", "checkpointing", "tied"),
    [
        (DEEP, "float32", True, False),
        (NORMED, "float32", False, True),
        (NORMED, "bfloat16", True, True),
        (WIDE_HEAD, "float32", True, True),
        (WIDE_HEAD, "bfloat16", False, False),
    ],
)
def test_the_update_needs_what_was_predicted(config, dtype, checkpointing, tied, tmp_path):
    setting = "on" if checkpointing else "off"
    policy, model = full_policy_of(config, tmp_path, tied, dtype=dtype, gradient_checkpointing=setting)
    step = StepShape(prompts=2, group=4, prompt_tokens=32, new_tokens=96)
    (micro,) = pack(full_length(step), torch.arange(step.rows), 10**6)

    def update():
        policy.log_probs(micro, 1.0)[0].sum().backward()

    update()  # the gradient's own memory is another part
    phases = predict(model, step, PlannedSettings(10**6, 8, checkpointing, merged=True), COMPUTER, ENGINE)
    assert comes_and_goes(phases["update"]) == pytest.approx(peak_bytes(update), rel=0.1)
    gradients = sum(p.grad.nbytes for p in policy.trained_parameters())
    assert phases["update"]["gradients"] == gradients
    assert phases["update"]["optimizer"] == 2 * gradients


@pytest.mark.parametrize(("config", "dtype"), [(DEEP, "float32"), (WIDE_HEAD, "bfloat16")])
def test_the_rollout_needs_what_was_predicted(config, dtype, tmp_path):
    policy, model = full_policy_of(config, tmp_path, dtype=dtype)
    decoder = decoder_of(policy, merged=True)
    step = StepShape(prompts=4, group=4, prompt_tokens=96, new_tokens=12)
    prompts, problems = full_length(step), tuple(Problem("", index=k) for k in range(step.prompts))
    batch = PromptBatch(problems, prompts.prompt_ids, prompts.prompt_lengths, 0)

    def rollout():
        decoder.refresh()
        draws = draw_uniforms(torch.Generator(), step.rows, step.new_tokens)
        with decoder.ready():
            sample_groups(decoder, batch, Sampling(4, 12), torch.tensor([-1]), lambda ids: "", draws)

    rollout()
    predicted = predict(model, step, PlannedSettings(1, 16, True, merged=True), COMPUTER, ENGINE)["rollout"]
    assert comes_and_goes(predicted) == pytest.approx(peak_bytes(rollout), rel=0.1)
    assert "merged copy" not in predicted


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("config", [DEEP, MULTIMODAL], ids=lambda config: config.model_type)
def test_weights_and_copies_need_what_was_predicted(config, dtype, tmp_path):
    """A vision tower is held, and not trained."""
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(EMBEDDED["tiny"] / file, tmp_path)
    settings = PolicyConfig(str(tmp_path), "none", dtype, lora_r=0)
    policy = Policy(settings, CPU, measures_kl=True)
    step = StepShape(prompts=2, group=4, prompt_tokens=32, new_tokens=96)
    plan = make_plan(settings, step, "auto", "auto", COMPUTER, ENGINE, LossTerms(kl=True))
    load = plan.phases["load"]
    trained, inside = policy.trained_parameters(), {id(p) for p in policy._weights}
    frozen = [p for p in policy.model.parameters() if id(p) not in inside]
    assert load["weights"] == sum(p.nbytes for p in (*trained, *frozen))
    assert load.get("rounded copy", 0) == (0 if dtype == "float32" else sum(p.nbytes for p in policy._weights))
    assert load["reference"] == sum(p.nbytes for p in policy._reference) > 0
    assert bool(frozen) == (config is MULTIMODAL)
    assert make_plan(settings, step, "auto", "auto", COMPUTER, ENGINE).phases["load"].get("reference") is None


def test_the_tiny_policy_is_tied():
    shape = shape_of(AutoConfig.from_pretrained(EMBEDDED["tiny"]))
    assert shape.tied
    assert shape.text_weights == shape.parameters


def test_what_fits_a_card_of_24_gb():
    """18 bytes a weight in 16 bits: 9 GB of 0.5B, 28 GB of 1.5B, whatever else there is."""

    def plan(size: str, gigabytes: float, **settings):
        config = PolicyConfig(QWEN.format(size), "none", "bfloat16", lora_r=0)
        return make_plan(config, STEP, "auto", "auto", gpu_of_size(gigabytes), ENGINE, **settings)

    small, large = plan("0.5B", 24), plan("1.5B", 24)
    assert small.fits
    assert not small.settings.checkpointing
    assert not large.fits
    assert sum(large.phases["update"][part] for part in ("weights", "rounded copy", "gradients", "optimizer")) == (
        18 * large.model.shape.parameters
    )
    assert plan("1.5B", 48).fits
    assert plan("0.5B", 24, terms=LossTerms(kl=True)).peak > small.peak
