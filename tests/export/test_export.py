"""Exports of a short run, as their users load them: plain transformers, plain PEFT, the hub's reader of cards."""

from __future__ import annotations

import json

import bitsandbytes as bnb
import pytest
import torch
from huggingface_hub import ModelCard
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_lightning.checkpointing.model_files import CONFIG_FILE
from rl_lightning.cli.main import main
from rl_lightning.export import merging
from tests.export.exported_run import FILES, fit

IDS = torch.arange(3, 43)[None]


def export(run, to, *words) -> int:
    return main(["export", str(run), "--to", str(to), *words])


def about(directory) -> dict:
    return json.loads((directory / "rl_lightning_export.json").read_text())


@pytest.fixture(scope="module")
def policy(run, base):
    """The adapter on the full-precision base by plain PEFT, in float32, not merged."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, run / "checkpoint-2").eval()


@pytest.fixture(scope="module")
def merged(run, tmp_path_factory):
    """The run merged in the base's own dtype, float32, and verified."""
    to = tmp_path_factory.mktemp("merged") / "model"
    assert export(run, to, "--format", "merged") == 0
    return to


@torch.no_grad()
def test_a_merged_model_is_the_policy_in_plain_transformers(merged, policy):
    model = AutoModelForCausalLM.from_pretrained(merged)
    logits, expected = model(IDS).logits, policy(IDS).logits
    with policy.disable_adapter():
        assert (expected - policy(IDS).logits).abs().max() > 0.1  # the adapter matters
    assert (logits - expected).abs().max() < 1e-4


def test_it_has_the_base_s_shards_and_the_base_s_files_byte_for_byte(merged, base):
    shards = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(shards) > 1
    assert sorted(path.name for path in merged.glob("*.safetensors")) == shards
    for name in (*FILES, "config.json", "model.safetensors.index.json"):
        assert (merged / name).read_bytes() == (base / name).read_bytes(), name
    for name in shards:
        ours, theirs = load_file(merged / name), load_file(base / name)
        assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
        assert all(torch.equal(ours[n], theirs[n]) for n in ours if "proj" not in n)
        assert not any(torch.equal(ours[n], theirs[n]) for n in ours if "proj.weight" in n)


def test_in_16_bits_each_weight_is_next_to_peft_s_merge(run, policy, base, tmp_path):
    """Above or below it, and on average neither; the others are rounded to the nearest."""
    assert export(run, tmp_path / "half", "--format", "merged", "--dtype", "bfloat16", "--no-verify") == 0
    expected = {}
    for name, module in policy.get_base_model().named_modules():
        if hasattr(module, "get_delta_weight"):
            expected[f"{name}.weight"] = (module.base_layer.weight + module.get_delta_weight("default")).detach()
    found = {n: t for path in (tmp_path / "half").glob("*.safetensors") for n, t in load_file(path).items()}
    original = {n: t for path in base.glob("*.safetensors") for n, t in load_file(path).items()}
    assert len(expected) == 28
    for name, weight in found.items():
        assert weight.dtype == torch.bfloat16
        if name in expected:
            step = torch.exp2(expected[name].abs().clamp(min=1e-30).log2().floor() - 7)
            error = (weight.float() - expected[name]) / step
            assert error.abs().max() < 1.01, name
            assert error.mean().abs() < 0.01, name
        else:
            assert torch.equal(weight, original[name].bfloat16()), name
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config == json.loads((base / "config.json").read_text()) | {"dtype": "bfloat16"}
    index = json.loads((tmp_path / "half" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    assert "exported with `--no-verify`" in (tmp_path / "half" / "README.md").read_text()
    assert about(tmp_path / "half")["verification"] is None


def test_an_adapter_loads_in_plain_peft(run, base, policy, tmp_path):
    assert export(run, tmp_path / "adapter", "--format", "adapter") == 0
    config = json.loads((tmp_path / "adapter" / CONFIG_FILE).read_text())
    model = AutoModelForCausalLM.from_pretrained(config["base_model_name_or_path"])
    loaded = PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, policy(IDS).logits)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(base).chat_template
    assert not list((tmp_path / "adapter").glob("model*"))


def test_what_the_verification_found_is_kept(merged):
    found = about(merged)["verification"]
    assert found["completions"] == 16  # one rollout of four groups of four
    assert found["distance"]["mean"] < 1e-4 < found["of_4_bits"]["mean"]
    assert list(found["accuracy"]) == ["all problems", "chain_sum", "spell_backward"]
    assert found["accuracy"]["all problems"]["n"] == 8
    assert found["faults"] == []


def test_a_merge_into_the_4_bit_base_is_found(run, tmp_path, capsys, monkeypatch):
    """The trap: the export is nearer to the policy as trained than a right one, and wrong."""
    read = merging.read_tensor

    def in_4_bits(file, name):
        tensor = read(file, name)
        if "proj" not in name or "lora" in name or tensor.ndim == 1:
            return tensor
        return bnb.functional.dequantize_4bit(*bnb.functional.quantize_4bit(tensor, quant_type="nf4"))

    monkeypatch.setattr(merging, "read_tensor", in_4_bits)
    to = tmp_path / "model"
    assert export(run, to, "--format", "merged", "--verify-problems", "2") == 1
    assert not to.exists()
    (fault,) = about(tmp_path / "model.failed")["verification"]["faults"]
    assert "log-probs differ" in fault
    assert "FAILED its verification" in capsys.readouterr().out
    assert "FAILED its verification. Do not use it" in (tmp_path / "model.failed" / "README.md").read_text()
    assert export(run, to, "--format", "merged", "--verify-problems", "2") == 1
    assert (tmp_path / "model_2.failed").exists()


def test_a_lost_chat_template_is_found(run, tmp_path, monkeypatch):
    def without(source, directory):
        copy(source, directory)
        (directory / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")

    from rl_lightning.export import exporting

    copy = exporting.copy_tokenizer
    monkeypatch.setattr(exporting, "copy_tokenizer", without)
    assert export(run, tmp_path / "model", "--format", "merged", "--verify-problems", "2") == 1
    assert "2 of 2 prompts have other tokens than in training" in (tmp_path / "model.failed" / "README.md").read_text()


def test_the_hub_reads_the_card(merged, run):
    card = ModelCard.load(merged / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.license == "unknown"
    assert card.data.base_model is None  # a directory is no name on the hub
    assert {"rl_lightning", "grpo"} <= set(card.data.tags)
    accuracy = about(merged)["verification"]["accuracy"]
    results = {result.dataset_name: result for result in card.data.eval_results}
    assert results["all problems (8 held-out problems)"].metric_value == round(accuracy["all problems"]["export"], 4)
    assert len(results) == 3
    evaluation = json.loads((run / "eval_results" / "eval_step_2.json").read_text())
    gain = evaluation["overall"]["gain"]
    assert f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})" in card.text
    assert "Unknown: no license was found" in card.text
    assert str(run.parent) not in card.text
    assert (merged / "learning_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_whole_model_is_exported_as_it_was_trained(base, tmp_path, capsys):
    given = {"model__policy__lora_r": 0, "model__policy__quantization": "none", "trainer__max_steps": 1}
    run = fit(tmp_path / "run", base, **given)
    assert export(run, tmp_path / "model", "--format", "merged", "--verify-problems", "2") == 0
    ours, theirs = (load_file(path / "model.safetensors") for path in (tmp_path / "model", run / "checkpoint-1"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not (tmp_path / "model" / "trainer.ckpt").exists()
    assert "the whole model as trained" in (tmp_path / "model" / "README.md").read_text()
    capsys.readouterr()
    assert export(run, tmp_path / "adapter", "--format", "adapter") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "it has no adapter; use --format merged" in line


def test_a_checkpoint_has_a_card_of_its_own_that_may_be_edited(run, tmp_path):
    card = ModelCard.load(run / "checkpoint-2" / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.eval_results[0].dataset_name == "all problems (8 held-out problems)"
    assert "after 2 optimizer steps" in card.text
    assert "README.md" not in json.loads((run / "checkpoint-2" / "checksums.json").read_text())
