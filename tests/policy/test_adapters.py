"""Adapters that somebody else has made."""

from __future__ import annotations

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.policy.adapters import adapter_shape, is_adapter, load_adapter
from rl_lightning.policy.loading import EMBEDDED
from rl_lightning.types import UserError
from tests.conftest import shake

IDS = torch.tensor([[5, 9, 3, 20, 7]])


def base():
    return AutoModelForCausalLM.from_pretrained(EMBEDDED["tiny"])


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Rank 4 on queries and values only, by plain PEFT."""
    model = get_peft_model(base(), LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"]))
    policy = type("Holder", (), {"model": model})
    shake(policy, 0.3)
    path = tmp_path_factory.mktemp("theirs")
    model.save_pretrained(path)
    return path


def test_a_foreign_adapter_of_few_modules_gives_the_logits_that_peft_gives(theirs):
    assert is_adapter(theirs)
    assert adapter_shape(theirs) == (4, 4)
    policy = Policy(PolicyConfig("tiny", quantization="none", lora_r=4, lora_alpha=4), torch.device("cpu"))
    with torch.no_grad():
        before = policy.model(IDS).logits
        load_adapter(policy.model, theirs)
        ours = policy.model(IDS).logits
        assert torch.allclose(ours, PeftModel.from_pretrained(base(), theirs)(IDS).logits, atol=1e-5)
    assert not torch.allclose(ours, before, atol=1e-2)


def changed(theirs, path, weights=None, **config):
    tensors, settings = (
        load_file(theirs / "adapter_model.safetensors"),
        json.loads((theirs / "adapter_config.json").read_text()),
    )
    save_file({(weights or str)(name): tensor for name, tensor in tensors.items()}, path / "adapter_model.safetensors")
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    return path


def test_what_is_no_plain_lora_is_refused(theirs, tmp_path):
    with pytest.raises(UserError, match="not a plain LoRA adapter \\(use_dora\\)"):
        adapter_shape(changed(theirs, tmp_path, use_dora=True))
    with pytest.raises(UserError, match="not a plain LoRA adapter \\(PREFIX_TUNING\\)"):
        adapter_shape(changed(theirs, tmp_path, peft_type="PREFIX_TUNING"))


def test_another_models_adapter_is_refused(theirs, tmp_path, caplog):
    policy = Policy(PolicyConfig("tiny", quantization="none", lora_r=4), torch.device("cpu"))
    other = changed(
        theirs, tmp_path, lambda name: name.replace("layers.1.", "layers.31."), base_model_name_or_path="hub/other"
    )
    with pytest.raises(UserError, match="does not fit this model: it adapts .*layers.31"):
        load_adapter(policy.model, other)
    assert "says that it adapts other, and the model is tiny" in caplog.text
    wide = Policy(PolicyConfig("tiny", quantization="none", lora_r=8), torch.device("cpu"))
    with pytest.raises(UserError, match="does not fit this model: size mismatch"):
        load_adapter(wide.model, theirs)
