"""Every shipped config parses, builds its tasks, and combines with every task set without mixing."""

from __future__ import annotations

import re
from itertools import cycle
from pathlib import Path

import pytest
import yaml

from rl_lightning.cli.lightning_cli import RLCommandLine
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.memory import gpu_of_size, make_plan
from rl_lightning.memory.shapes import known_models
from rl_lightning.policy import PolicyConfig
from rl_lightning.rollout import LocalEngine, Sampling
from tests.conftest import ROOT

MODELS = sorted((ROOT / "configs").glob("*.yaml"))
TASK_SETS = sorted((ROOT / "configs" / "tasks").glob("*.yaml"))


def parse(monkeypatch, *configs: Path):
    """What `fit` would run with."""
    words = [word for config in configs for word in ("--config", str(config))]
    monkeypatch.setattr("sys.argv", ["rl_lightning", "fit", *words, "--trainer.default_root_dir", "no/such/run"])
    monkeypatch.setattr(RLCommandLine, "instantiate_classes", lambda self: None)
    monkeypatch.setattr(RLCommandLine, "_run_subcommand", lambda self, subcommand: None)
    return RLCommandLine().config.fit


def tasks_of(config) -> dict[str, TaskSpec]:
    """The tasks, which are reasoning-gym's."""
    return {name: TaskSpec(spec.weight, spec.config, spec.levels) for name, spec in config.data.datasets.items()}


def names(path: Path) -> set[str]:
    return set(yaml.safe_load(path.read_text())["data"]["datasets"])


def test_the_configs_that_the_design_names_are_there():
    qwen = {"qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b", "qwen3-1.7b", "qwen3-4b"}
    others = {"llama-3.2-1b", "llama-3.2-3b", "gemma-3-1b", "smollm2-135m", "smollm2-1.7b", "phi-4-mini", "olmo-2-1b"}
    assert {p.stem for p in MODELS} == {"quickstart"} | qwen | others
    assert {p.stem for p in TASK_SETS} == {"arithmetic", "logic", "algorithmic", "games"}


@pytest.mark.parametrize("model", MODELS, ids=lambda p: p.stem)
def test_a_config_parses_and_its_tasks_exist(monkeypatch, model):
    config = parse(monkeypatch, model)
    assert set(config.data.datasets) == names(model)
    EnvironmentMixture(tasks_of(config))


@pytest.mark.parametrize("path", [p for p in MODELS if p.stem != "quickstart"], ids=lambda p: p.stem)
def test_a_model_fits_where_its_config_says(path):
    """It names the GPU in its own second line, needs no network for the plan, and stays within the model's attention window."""
    (gigabytes,) = re.findall(
        rf"plan --config configs/{re.escape(path.name)} --vram (\d+)$", path.read_text(), flags=re.M
    )
    config = yaml.safe_load(path.read_text())
    model, data = config["model"], config["data"]
    step = Sampling(**model["sampling"]).step_shape(data["prompts_per_step"], data["max_prompt_tokens"])
    policy = PolicyConfig(**model["policy"], dtype="bfloat16")  # GPUs that these are for have it
    plan = make_plan(policy, step, "auto", "auto", gpu_of_size(float(gigabytes)), LocalEngine())
    assert plan.fits
    assert plan.settings.max_rollout_rows >= 8
    assert policy.model_name_or_path in known_models()
    if "gemma-3" in path.stem:
        assert step.prompt_tokens + step.new_tokens <= 512  # the window of its sliding layers


@pytest.mark.parametrize(("model", "tasks"), list(zip(MODELS, cycle(TASK_SETS))), ids=lambda p: p.stem)
def test_a_task_set_replaces_the_models_own(monkeypatch, model, tasks):
    config = parse(monkeypatch, model, tasks)
    assert set(config.data.datasets) == names(tasks)
    assert (
        config.model.policy.model_name_or_path
        == yaml.safe_load(model.read_text())["model"]["policy"]["model_name_or_path"]
    )
    assert config.fixed_eval.fixed_eval_steps  # required callbacks stay, whatever a later file says
    EnvironmentMixture(tasks_of(config))


def test_one_seed_sets_all(monkeypatch, tmp_path):
    seeded = tmp_path / "seed.yaml"
    seeded.write_text("seed_everything: 7")
    config = parse(monkeypatch, ROOT / "configs" / "quickstart.yaml", seeded)
    assert (config.model.seed, config.data.seed) == (7, 7)


@pytest.mark.parametrize("logger", ["WandbLogger", "TensorBoardLogger", "MLFlowLogger"])
def test_another_logger_is_one_line_of_the_readme(monkeypatch, tmp_path, logger):
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if f"class_path: {logger}" in line]
    extra = tmp_path / "logger.yaml"
    extra.write_text(f"trainer:\n  {line.strip()}")
    config = parse(monkeypatch, ROOT / "configs" / "quickstart.yaml", extra)
    assert config.trainer.logger.class_path.endswith(logger)
