"""Adapters that somebody else has made: a run begins from them with the log-probs that plain PEFT gives, or they are refused."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rl_lightning.checkpointing.model_files import is_adapter
from rl_lightning.cli.main import main
from rl_lightning.policy import Policy, PolicyConfig, pack
from rl_lightning.policy.adapters import lora_settings
from rl_lightning.policy.config import EMBEDDED
from rl_lightning.rollout import Sampling
from rl_lightning.types import UserError
from tests.conftest import QUICKSTART, generate, shake

CPU = torch.device("cpu")


def base():
    return AutoModelForCausalLM.from_pretrained(EMBEDDED["tiny"])


def saved(path, **config):
    """An adapter by plain PEFT that changes what the model says."""
    torch.manual_seed(0)
    model = get_peft_model(base(), LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"} | config))
    shake(type("Holder", (), {"model": model}), 0.3)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Rank 4 on queries and values only."""
    return saved(tmp_path_factory.mktemp("theirs"), target_modules=["q_proj", "v_proj"])


ADAPTERS = [
    {"target_modules": ["q_proj", "v_proj"]},
    {"target_modules": "all-linear", "use_rslora": True},
    {"target_modules": ["gate_proj", "o_proj"], "layers_to_transform": [1, 3], "r": 3, "lora_dropout": 0.1},
    {"target_modules": r".*\.(0|2)\.mlp\.(up|down)_proj", "use_rslora": True, "init_lora_weights": "gaussian"},
]


@pytest.mark.parametrize("weights", ["merged", "unmerged"])
@pytest.mark.parametrize("config", ADAPTERS, ids=["few", "rslora", "some layers", "regex"])
def test_rollouts_and_updates_have_the_log_probs_of_plain_peft(config, weights, batch, tmp_path):
    directory = saved(tmp_path, **config)
    settings = {"adapter": str(directory), "quantization": "none", "rollout_weights": weights}
    policy = Policy(PolicyConfig("tiny", **settings), CPU)
    rollout = generate(policy, batch, Sampling(2, 6))
    (micro,) = pack(rollout, torch.arange(len(rollout.mask)), 10**6)
    update = policy.log_probs(micro, 1.0)[0]
    plain, untrained = PeftModel.from_pretrained(base(), directory).eval(), base()
    expected, before = [], []
    with torch.no_grad():
        for row, column in zip(micro.row_of.tolist(), micro.column_of.tolist(), strict=True):
            prompt = rollout.prompt_ids[row // 2, : rollout.prompt_lengths[row // 2]]
            ids = torch.cat([prompt, rollout.completion_ids[row, :column]])[None]
            token = rollout.completion_ids[row, column]
            for model, found in ((plain, expected), (untrained, before)):
                logits = model(input_ids=ids).logits[0, -1, : policy.head.words]
                found.append(logits.log_softmax(dim=-1)[token])
    assert torch.allclose(update, torch.stack(expected), atol=1e-4)
    assert torch.allclose(rollout.sampling_logps[micro.row_of, micro.column_of], torch.stack(expected), atol=1e-4)
    assert not torch.allclose(update, torch.stack(before), atol=0.05)


@pytest.mark.parametrize("config", ADAPTERS, ids=["few", "rslora", "some layers", "regex"])
def test_the_run_adapts_what_the_adapter_does_and_saves_it_for_peft(config, tmp_path, caplog):
    directory = saved(tmp_path / "theirs", **config)
    settings = PolicyConfig("tiny", adapter=str(directory), quantization="none")
    assert (settings.lora_r, settings.lora_alpha) == (config.get("r", 4), 8)
    assert settings.use_rslora == config.get("use_rslora", False)
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert f"has lora_r {settings.lora_r}, lora_alpha 8" in line
    policy = Policy(settings, CPU)
    policy.save(tmp_path / "ours")
    ours, given = (load_file(path / "adapter_model.safetensors") for path in (tmp_path / "ours", directory))
    assert sorted(ours) == sorted(given)
    assert all(torch.equal(ours[name], given[name]) for name in given)
    again = PeftModel.from_pretrained(base(), tmp_path / "ours")
    ids = torch.tensor([[5, 9, 3, 20, 7]])
    with torch.no_grad():
        expected = PeftModel.from_pretrained(base(), directory)(ids).logits
        assert torch.allclose(again(ids).logits, expected, atol=1e-6)


def test_the_started_adapter_is_the_reference_and_autograd_does_not_notice(theirs, batch):
    settings = {"adapter": str(theirs), "quantization": "none"}
    policy = Policy(PolicyConfig("tiny", **settings, reference="adapter"), CPU)
    on_base = Policy(PolicyConfig("tiny", **settings), CPU)
    rollout = generate(policy, batch, Sampling(2, 6))
    (micro,) = pack(rollout, torch.arange(len(rollout.mask)), 10**6)
    began = policy.log_probs(micro, 1.0)[0].detach()
    for each in (policy, on_base):
        shake(each, 0.2)
    logps = policy.log_probs(micro, 1.0)[0]
    assert not torch.allclose(logps, began, atol=0.05)
    assert torch.equal(policy.reference_log_probs(micro, 1.0), began)
    assert not torch.allclose(on_base.reference_log_probs(micro, 1.0), began, atol=0.05)
    logps.sum().backward()  # of a forward pass before the reference's
    on_base.log_probs(micro, 1.0)[0].sum().backward()
    for mine, expected in zip(policy.trained_parameters(), on_base.trained_parameters(), strict=True):
        assert torch.equal(mine.grad, expected.grad)
        assert torch.equal(mine, expected)


def changed(theirs, path, weights=None, **config):
    tensors, settings = (
        load_file(theirs / "adapter_model.safetensors"),
        json.loads((theirs / "adapter_config.json").read_text()),
    )
    path.mkdir(exist_ok=True)
    save_file({(weights or str)(name): tensor for name, tensor in tensors.items()}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    return path


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "lora_only"}, "bias lora_only"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights pissa_niter_4"),
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING"),
    ],
)
def test_what_is_no_plain_lora_is_refused(theirs, tmp_path, config, what):
    with pytest.raises(UserError, match=f"is not a plain LoRA adapter \\({what}\\); only plain LoRA can be loaded"):
        PolicyConfig("tiny", adapter=str(changed(theirs, tmp_path, **config)))


def test_tensors_of_another_kind_are_refused(theirs, tmp_path):
    other = changed(theirs, tmp_path, lambda name: name.replace("lora_B.weight", "lora_magnitude_vector"))
    with pytest.raises(UserError, match="is not a plain LoRA adapter: it has base_model.*lora_magnitude_vector"):
        lora_settings(other)


def test_another_models_adapter_is_refused(theirs, tmp_path, caplog):
    def refused(message, weights=None, **config):
        other = changed(theirs, tmp_path, weights, **config)
        with pytest.raises(UserError, match=message):
            Policy(PolicyConfig("tiny", adapter=str(other), quantization="none"), CPU)

    refused(
        r"does not fit this model: it has .*layers\.31\..*lora_A.weight, for which",
        lambda name: name.replace("layers.1.", "layers.31."),
        base_model_name_or_path="hub/other",
    )
    assert "says that it adapts other, and the model is tiny" in caplog.text
    refused(r"does not fit this model: it lacks .*k_proj.lora_A", target_modules=["q_proj", "v_proj", "k_proj"])
    refused(r"q_proj.lora_A.weight is 4 by 128, and would have to be 8 by 128", r=8)
    refused(r"'wq' is none of the linear layers that can be adapted; there are: down_proj, gate", target_modules=["wq"])


def test_mistakes_are_one_line_and_exit_status_2(theirs, tmp_path, capfd):
    (tmp_path / "text").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "text" / name).write_text("nonsense")
    cut, odd = changed(theirs, tmp_path / "cut"), changed(theirs, tmp_path / "odd", lora_alpha=2.5)
    (cut / "adapter_model.safetensors").write_bytes((cut / "adapter_model.safetensors").read_bytes()[:100])
    for words, part in (
        (["adapter=" + str(tmp_path / "nowhere")], "policy.adapter: "),
        (["adapter=" + str(tmp_path / "text")], "is not JSON of an adapter"),
        (["adapter=" + str(cut)], "cannot be read"),
        (["adapter=" + str(odd)], "must be a whole number, 1 or more, not 2.5"),
        (["reference=adapter"], "it must be base where policy.adapter is null"),
        (["adapter=" + str(theirs), "reference=adapter"], "set model.objective.beta above 0"),
        (
            ["lora_target_modules=[q_proj, wq]"],
            "'wq' is none of the linear layers that can be adapted; there are: down",
        ),
        (["lora_target_modules=[]"], "at least one name"),
        (["lora_dropout=0.1"], "policy.lora_dropout: 0.1 is not allowed; it must be 0: with dropout"),
        (["init_lora_weights=pissa"], "it must be true, gaussian or orthogonal: others change the base"),
        (["init_lora_weights=orthogonal", "lora_r=5"], "policy.lora_r: 5 is not allowed; it must be even"),
    ):
        settings = [f"--model.policy.{word}" for word in words]
        root = f"--trainer.default_root_dir={tmp_path / 'run'}"
        assert main(["fit", "--config", str(QUICKSTART), "--trainer.max_steps=1", root, *settings]) == 2, words
        error = capfd.readouterr().err
        (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
        assert part in line
        assert "Traceback" not in error


def test_a_directory_with_both_files_is_an_adapter(theirs, tmp_path):
    assert is_adapter(theirs)
    assert not is_adapter(tmp_path)
