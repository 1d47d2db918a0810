"""Small random models of many families, with the tiny policy's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rl_lightning.policy import Policy, PolicyConfig
from rl_lightning.policy.config import EMBEDDED
from tests.conftest import shake

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OWN = {
    "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8},
    "gpt_neox": {"num_key_value_heads": 4},
    "phi4_mini": {"model_type": "phi3", "partial_rotary_factor": 0.5, "tie_word_embeddings": True},
    "smollm3": {"no_rope_layers": [1, 0]},
}


def random_policy(family: str, tmp_path: Path, dtype: str = "auto", **config) -> Policy:
    """A small random model of the family, loaded in full precision, its adapters shaken."""
    policy = Policy(PolicyConfig(str(random_model(family, tmp_path, **config)), "none", dtype), torch.device("cpu"))
    shake(policy, scale=0.05)
    return policy


def random_model(family: str, tmp_path: Path, **config) -> Path:
    """The directory of a small random model of the family with the tiny policy's tokenizer."""
    directory = tmp_path / family
    shutil.copytree(EMBEDDED["tiny"], directory)
    vocabulary = json.loads((directory / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    own = SHAPE | {"vocab_size": vocabulary} | OWN.get(family, {}) | config
    base = AutoModelForCausalLM.from_config(AutoConfig.for_model(own.pop("model_type", family), **own))
    disturb(base)
    base.save_pretrained(directory)
    return directory


def disturb(model) -> None:
    """Give values to what starts at zero or one, and so would show little."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "bias" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
