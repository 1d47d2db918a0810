"""A short run on a base whose weights 4 bits change, in several shards, for the tests of exports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from rl_lightning.cli.main import main
from rl_lightning.policy.config import EMBEDDED
from tests.conftest import QUICKSTART

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
SHARD = "1MB"


def write_base(directory: Path, noise: float = 0.3) -> Path:
    """The tiny policy with noise on its linear layers, so that its weights are not on the grid of 4 bits, in shards."""
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED["tiny"])
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "proj" in name and weight.ndim == 2:
                weight.add_(noise * weight.std() * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(directory, max_shard_size=SHARD)
    for name in FILES:
        shutil.copyfile(EMBEDDED["tiny"] / name, directory / name)
    return directory


def fit(root: Path, base: Path, **settings: object) -> Path:
    """Two steps with a reward by which every group differs; returns the run's directory."""
    given = {
        "trainer.default_root_dir": root,
        "trainer.max_steps": 2,
        "trainer.enable_progress_bar": "false",
        "model.policy.model_name_or_path": base,
        "model.reward": "tests.runs.LengthReward",
        "model.learning_rate": 0.01,
        "model.sampling.num_generations": 4,
        "model.sampling.max_new_tokens": 12,
        "data.prompts_per_step": 4,
        "data.num_workers": 0,
        "data.eval_num_samples": 4,
        "data.datasets": json.dumps({"chain_sum": {"config": {"max_terms": 3}}, "spell_backward": {}}),
    } | {name.replace("__", "."): value for name, value in settings.items()}
    assert main(["fit", "--config", str(QUICKSTART), *(f"--{name}={value}" for name, value in given.items())]) == 0
    return root
