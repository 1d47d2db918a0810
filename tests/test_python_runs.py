"""A run made from Python leaves what one from the command line leaves: metrics, a config, and what reads them goes on from it."""

from __future__ import annotations

import csv
import logging
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger

from rl_lightning.callbacks import AdapterCheckpoint, FixedEval, RunDirectory
from rl_lightning.callbacks.python_config import write_config
from rl_lightning.checkpointing.secrets import secret_names
from rl_lightning.cli.main import main
from rl_lightning.data import PromptDataModule
from rl_lightning.environments import TaskSpec
from rl_lightning.loggers import MetricsCSV
from rl_lightning.module import GRPOModule
from rl_lightning.objective import GSPO, Objective
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import Reward, WeightedReward
from tests.own_sums import Sums


def parts(root: Path, logger: object, kind=GRPOModule, callbacks=None, fast_dev_run=False, **settings):
    seed_everything(0)
    given = {"reward": WeightedReward(format=0.3), "objective": Objective(surrogate=GSPO()), "learning_rate": 1e-3}
    module = kind(sampling=Sampling(4, 12), score_workers=1, **given | settings)
    tasks = {"chain_sum": TaskSpec(config={"max_terms": 3}, weight=2), "own": TaskSpec(environment=Sums())}
    data = PromptDataModule(tasks, 2, system_prompt="", num_workers=0, eval_num_samples=4)
    trainer = Trainer(
        default_root_dir=root,
        accelerator="cpu",
        max_steps=2,
        max_epochs=-1,
        fast_dev_run=fast_dev_run,
        logger=logger,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks or [RunDirectory(), FixedEval(2), AdapterCheckpoint(save_steps=1)],
    )
    return module, data, trainer


def trained(root: Path, logger: object) -> Path:
    module, data, trainer = parts(root, logger)
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


def test_validate_leaves_the_metrics_alone_and_a_trial_run_leaves_nothing(tmp_path):
    module, data, trainer = parts(tmp_path / "run", logger=False)
    trainer.fit(module, data)
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    trainer.validate(module, data, verbose=False)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
    module, data, trainer = parts(tmp_path / "trial", logger=False, fast_dev_run=True, callbacks=[RunDirectory()])
    trainer.fit(module, data)
    assert not {"metrics.csv", "config.yaml"} & {path.name for path in (tmp_path / "trial").iterdir()}


def test_a_run_that_starts_again_is_described_by_its_own_settings(tmp_path):
    for rate in (1e-3, 2e-3):
        module, data, trainer = parts(
            tmp_path, logger=False, callbacks=[RunDirectory(start_again=True)], learning_rate=rate
        )
        trainer.fit(module, data)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["model"]["learning_rate"] == 2e-3


def test_metrics_csv_is_left_when_fit_is_interrupted(tmp_path):
    trainer, directory = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False), RunDirectory()
    directory.setup(trainer, None, "fit")
    assert [type(logger) for logger in trainer.loggers] == [MetricsCSV]
    directory.on_exception(trainer, None, KeyboardInterrupt())  # after which Lightning calls no teardown
    assert trainer.loggers == []


def written(root: Path, resumed: bool, **settings) -> list[str]:
    module, data, _ = parts(root, logger=False, **settings)
    device = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(datamodule=data, strategy=device, default_root_dir=root, max_steps=2)
    write_config(trainer, module, root / "config.yaml", resumed)
    return sorted(path.name for path in root.glob("*.yaml"))


def test_a_resumed_run_keeps_its_config_and_has_another_where_the_settings_are_others(tmp_path):
    assert written(tmp_path, resumed=False) == ["config.yaml"]
    first = (tmp_path / "config.yaml").read_bytes()
    assert written(tmp_path, resumed=True) == ["config.yaml"]
    (second,) = set(written(tmp_path, resumed=True, learning_rate=2e-3)) - {"config.yaml"}
    assert (tmp_path / "config.yaml").read_bytes() == first
    assert yaml.safe_load((tmp_path / second).read_text())["model"]["learning_rate"] == 2e-3


def test_one_rank_writes_the_config_and_the_others_hear_of_it(tmp_path):
    asked = []
    module = SimpleNamespace(
        loaded_step=0, collective=SimpleNamespace(broadcast=asked.append)
    )  # of a rank that does not write
    trainer = SimpleNamespace(default_root_dir=tmp_path, global_step=0, fast_dev_run=0, callbacks=[])
    RunDirectory().on_train_start(trainer, module)
    assert len(asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_has_its_logger_before_any_setup_and_a_trial_run_leaves_nothing(tmp_path):
    small = ["--data.prompts_per_step=2", "--model.sampling.num_generations=4", "--model.sampling.max_new_tokens=8"]
    words = [
        "fit",
        "--config",
        "quickstart",
        *small,
        "--data.eval_num_samples=2",
        "--trainer.callbacks+=DeviceStatsMonitor",
    ]
    assert main([*words, "--trainer.max_steps=1", f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 0
    assert "DeviceStatsMonitor" in (tmp_path / "run" / "metrics.csv").read_text()
    assert main([*words, "--trainer.fast_dev_run=1", f"--trainer.default_root_dir={tmp_path / 'trial'}"]) == 0
    assert not {"metrics.csv", "config.yaml"} & {path.name for path in (tmp_path / "trial").glob("*")}


def test_no_setting_of_ours_looks_like_a_secret(tmp_path):
    assert written(tmp_path, resumed=False) == ["config.yaml"]
    assert not list(secret_names(yaml.safe_load((tmp_path / "config.yaml").read_text())))


def words_of(problem, completion, score):
    return len(completion.split())


class Judge(Reward):
    def __init__(self, words=()) -> None:
        self.words = words

    def __call__(self, problem, completion, score):
        return float(len(completion))


class Narrow(Reward):
    def __init__(self, scale: float = 1.0) -> None:
        self._scale = scale

    def __call__(self, problem, completion, score):
        return self._scale * len(completion)


class Secret(Reward):
    def __init__(self, api_key: str) -> None:
        self.api_key = api_key

    def __call__(self, problem, completion, score):
        return float(len(completion))


class Sub(GRPOModule):
    """A module of a user's own."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reward": partial(words_of, problem=None)}, "partial keeps its argument func|partial"),
        ({"reward": lambda completion: len(completion)}, "cannot be imported by others; move it"),
        ({"reward": Judge(words={"a"})}, "a set cannot be written"),
        ({"reward": Narrow(2.0)}, "Narrow keeps its argument scale in no attribute"),
        ({"reward": Secret("sk-1")}, "api_key looks like a secret"),
        ({"kind": Sub}, "Sub is not GRPOModule"),
    ],
)
def test_what_a_config_cannot_have_is_a_line_and_no_config(tmp_path, caplog, settings, said):
    module, data, trainer = parts(
        tmp_path, logger=False, callbacks=[RunDirectory(), AdapterCheckpoint(save_steps=1)], **settings
    )
    with caplog.at_level(logging.WARNING):
        trainer.fit(module, data)
    (line,) = [
        each.getMessage() for each in caplog.records if "there is no config.yaml for this run" in each.getMessage()
    ]
    assert re.search(said, line)
    assert "\n" not in line
    assert not (tmp_path / "config.yaml").exists()
    assert "sk-1" not in (tmp_path / "checkpoint-1" / "README.md").read_text()
