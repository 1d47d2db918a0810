"""A run made from Python leaves what one from the command line leaves: metrics, a config, and what reads them goes on from it."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from rl_lightning.callbacks import AdapterCheckpoint, FixedEval, RunDirectory
from rl_lightning.checkpointing.recorded import Recorded, as_config
from rl_lightning.cli.main import main
from rl_lightning.curriculum import Curriculum
from rl_lightning.data import PromptDataModule
from rl_lightning.environments import Environment, TaskSpec
from rl_lightning.environments.verifiers import Number
from rl_lightning.module import GRPOModule
from rl_lightning.objective import GSPO, Objective
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import WeightedReward
from rl_lightning.types import Problem


class Sums(Environment):
    """A task of a user's own."""

    def __init__(self, terms: int = 2) -> None:
        self.terms, self.config = terms, {"terms": terms}

    def problem(self, seed: int) -> Problem:
        rng = random.Random(seed)
        numbers = [rng.randint(0, 99) for _ in range(self.terms)]
        return Problem(" + ".join(map(str, numbers)), expected=str(sum(numbers)))

    def verify(self, problem: Problem, answer: str) -> float:
        return float(answer == problem.expected)


def trained(root: Path, logger: object) -> Path:
    seed_everything(0)
    module = GRPOModule(
        sampling=Sampling(4, 12),
        objective=Objective(surrogate=GSPO()),
        reward=WeightedReward(format=0.3),
        learning_rate=1e-3,
        score_workers=1,
    )
    tasks = {"chain_sum": TaskSpec(config={"max_terms": 3}, weight=2), "own": TaskSpec(environment=Sums())}
    data = PromptDataModule(tasks, 2, system_prompt="", num_workers=0, eval_num_samples=4)
    trainer = Trainer(
        default_root_dir=root,
        accelerator="cpu",
        max_steps=2,
        max_epochs=-1,
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RunDirectory(), FixedEval(2), AdapterCheckpoint(save_steps=1)],
    )
    trainer.fit(module, data)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "python"
    return trained(root, CSVLogger(str(root), name="theirs"))


def test_metrics_are_there_whatever_the_logger(run, tmp_path):
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert [row["step"] for row in rows if row["reward/mean"]] == ["1", "2"]
    assert list(run.glob("theirs/*/metrics.csv"))  # the user's own logger stands beside
    assert (trained(tmp_path / "none", logger=False) / "metrics.csv").is_file()


def test_its_config_is_read_by_the_commands(run, capsys):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["objective"]["surrogate"]["class_path"].endswith(".GSPO")
    assert config["model"]["reward"]["init_args"]["format"] == 0.3
    words = ["--config", str(run / "config.yaml"), "--ckpt_path", "last", "--trainer.max_steps=3"]
    assert main(["fit", *words]) == 0
    assert (run / "checkpoint-3").is_dir()
    assert main(["report", str(run)]) == 0
    assert main(["chat", "--ckpt_path", str(run / "checkpoint-3"), "--task", "own"]) == 0
    assert "No metric yet" not in (run / "report.html").read_text()
    capsys.readouterr()


def test_settings_as_a_config_has_them():
    assert as_config(Sampling(4, 12))["max_new_tokens"] == 12
    assert as_config(Curriculum(low=0.3))["low"] == 0.3
    assert as_config(Number()) == {
        "class_path": "rl_lightning.environments.verifiers.number.Number",
        "init_args": {"tolerance": 0.0, "relative_tolerance": 0.0, "units": []},
    }
    assert as_config({"a": (Path("x"), as_config)}) == {"a": ["x", "rl_lightning.checkpointing.recorded.as_config"]}


def test_arguments_are_recorded_with_their_defaults():
    class Mine(Recorded):
        def __init__(self, a, b=2):
            pass

    assert Mine(1).arguments == {"a": 1, "b": 2}
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        Mine(c=1)
