"""Runs that begin from an adapter: what step 0 is, what the KL term measures from, resuming, and the commands that read it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from rl_lightning.checkpointing.checkpoints import resolve_checkpoint
from rl_lightning.cli.main import main
from rl_lightning.objective import Objective
from rl_lightning.policy import PolicyConfig
from rl_lightning.types import UserError
from tests.conftest import QUICKSTART
from tests.runs import run, same


def of_weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """A run of another rank and of few layers, at a high rate, so that its policy is not the base."""
    root = tmp_path_factory.mktemp("first") / "run"
    policy = PolicyConfig("tiny", lora_r=4, lora_alpha=16, use_rslora=True, lora_target_modules=["q_proj", "up_proj"])
    run(root, 2, policy=policy, learning_rate=0.02)
    return root


@pytest.fixture(scope="module")
def adapter(first, tmp_path_factory) -> Path:
    """Its adapter, alone in a directory."""
    alone = tmp_path_factory.mktemp("alone") / "adapter"
    alone.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(first / "checkpoint-2" / name, alone / name)
    return alone


def begun(adapter: Path, reference: str = "adapter", beta: float = 0.5) -> dict:
    return {
        "policy": PolicyConfig("tiny", adapter=str(adapter), reference=reference),
        "objective": Objective(beta=beta),
    }


def column(root: Path, name: str) -> list[float]:
    with (root / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]  # an evaluation has a row of its own


def test_a_resumed_run_has_the_same_reference_to_the_last_bit(adapter, first, tmp_path):
    run(tmp_path / "whole", 4, **begun(adapter))
    run(tmp_path / "halves", 2, **begun(adapter))
    moved = shutil.copytree(adapter, tmp_path / "moved")  # where it is does not matter
    run(tmp_path / "halves", 4, ckpt_path=str(resolve_checkpoint("last", tmp_path / "halves")), **begun(moved))
    same(tmp_path / "halves", tmp_path / "whole", 4)
    assert column(tmp_path / "halves", "policy/kl") == column(tmp_path / "whole", "policy/kl")
    run(tmp_path / "base", 2, **begun(adapter, reference="base"))
    from_adapter, from_base = (column(tmp_path / name, "policy/kl") for name in ("whole", "base"))
    assert from_adapter[0] == pytest.approx(0, abs=1e-9)
    assert from_base[0] > 1e-3


def test_step_0_is_the_policy_that_the_run_begins_with(adapter, first, tmp_path, capsys):
    run(tmp_path, 1, **begun(adapter))
    ours = json.loads((tmp_path / "eval_results" / "eval_step_0.json").read_text())
    base, theirs = (json.loads((first / "eval_results" / f"eval_step_{n}.json").read_text()) for n in (0, 2))
    assert ours["rows"] == theirs["rows"]
    assert ours["rows"] != base["rows"]
    assert ours["began_from"] == str(adapter)
    assert "began_from" not in base
    assert main(["compare", str(tmp_path), "base", "--out", str(tmp_path / "out")]) == 2
    assert f"the run began from {adapter}, so its step 0 is not the base" in capsys.readouterr().err


def test_another_adapter_or_reference_is_refused_on_resuming(adapter, tmp_path):
    run(tmp_path / "run", 1, evaluate=False, **begun(adapter))
    last = str(resolve_checkpoint("last", tmp_path / "run"))
    changed = shutil.copytree(adapter, tmp_path / "changed")
    save_file({k: v * 1.001 for k, v in of_weights(adapter).items()}, changed / "adapter_model.safetensors")
    for model, message in (
        (begun(changed), r"policy.adapter was SHA-256 \w{64} and is SHA-256 \w{64};"),
        (begun(adapter, reference="base"), "policy.reference was 'adapter' and is 'base'"),
        ({"objective": Objective(beta=0.5)}, r"policy.adapter was SHA-256 \w{64} and is None"),
    ):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "run", 2, ckpt_path=last, evaluate=False, **model)


@pytest.fixture(scope="module")
def by_command(adapter, tmp_path_factory) -> tuple[Path, Path]:
    """A run that `fit` began from an adapter that has been deleted since, and a copy of that adapter."""
    root = tmp_path_factory.mktemp("by_command")
    own = shutil.copytree(adapter, root / "own")
    small = {
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "max_steps": 1},
        "model": {"policy": {"adapter": str(own), "lora_r": 16}, "learning_rate": 0.01},
        "data": {"prompts_per_step": 2, "eval_num_samples": 2, "num_workers": 0},
    }
    (root / "small.yaml").write_text(yaml.safe_dump(small))
    words = ["--config", str(QUICKSTART), "--config", str(root / "small.yaml")]
    assert main(["fit", *words, f"--trainer.default_root_dir={root / 'run'}"]) == 0
    kept = Path(shutil.move(own, root / "kept"))
    return root / "run", kept


def test_the_commands_read_it(by_command, adapter, tmp_path, capsys):
    root, kept = by_command
    policy = yaml.safe_load((root / "config.yaml").read_text())["model"]["policy"]
    assert (policy["lora_r"], policy["lora_alpha"], policy["use_rslora"]) == (4, 16, True)
    assert policy["lora_target_modules"] == ["q_proj", "up_proj"]
    config = ["--config", str(root / "config.yaml")]
    assert main(["validate", *config, "--ckpt_path", str(root / "checkpoint-1")]) == 0
    found = json.loads((root / "eval_results" / "validate_step_1.json").read_text())
    assert found["rows"] == json.loads((root / "eval_results" / "eval_step_1.json").read_text())["rows"]
    out = f"--trainer.default_root_dir={tmp_path / 'out'}"
    assert main(["validate", *config, "--ckpt_path", str(kept), out]) == 0
    found = json.loads((tmp_path / "out" / "eval_results" / "validate_step_0.json").read_text())
    assert found["rows"] == json.loads((root / "eval_results" / "eval_step_0.json").read_text())["rows"]
    assert found["of"]["checkpoint"] == str(kept)
    task, index = found["rows"][0]["task"], str(found["rows"][0]["index"])
    for words in (["--ckpt_path", str(root)], [*config, "--ckpt_path", str(root / "checkpoint-1")]):
        assert main(["chat", *words, "--task", task, "--index", index]) == 0
    (tmp_path / "kept.yaml").write_text(yaml.safe_dump({"model": {"policy": {"adapter": str(kept)}}}))
    capsys.readouterr()
    assert main(["chat", "--config", str(tmp_path / "kept.yaml"), "--task", task, "--index", index]) == 0
    assert main(["plan", "--config", str(QUICKSTART), "--config", str(tmp_path / "kept.yaml")]) == 0
    assert main(["fit", *config, "--ckpt_path", "last"]) == 2
    assert "is not a PEFT adapter; give a directory with adapter_config.json" in capsys.readouterr().err
