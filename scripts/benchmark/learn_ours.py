"""rl_lightning's side of the race."""

from __future__ import annotations

import tempfile
from statistics import fmean
from typing import Any

from lightning.pytorch import Callback, Trainer

from benchmark.learning import Course, main, quickstart
from rl_lightning.cli import quiet
from rl_lightning.data import ReasoningGymDataModule
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.policy import PolicyConfig
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import WeightedReward
from rl_lightning.tasks.stream import TaskSpec


class Referee(Callback):
    """Evaluates, and ends the run at the target."""

    def __init__(self, course: Course) -> None:
        self.course = course

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.course.begin(lambda: accuracy(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = self.course.step_ended(trainer.global_step, lambda: accuracy(pl_module))


def accuracy(module: Any) -> float:
    """Of greedy answers to the held-out problems."""
    batches = module.trainer.datamodule.eval_batches(module.sampling.max_rollout_rows)
    return fmean(score.exact for i, batch in enumerate(batches) for score in module.validation_step(batch, i)["scores"])


def module_of(config: dict[str, Any], seed: int) -> GRPOModule:
    """The module that a config file's `model` section describes."""
    parts = {"policy": PolicyConfig, "sampling": Sampling, "objective": Objective}
    settings = {name: parts[name](**value) if name in parts else value for name, value in config["model"].items()}
    settings["reward"] = WeightedReward(**config["model"]["reward"]["init_args"])
    return GRPOModule(**settings, seed=seed)


def data_of(config: dict[str, Any], seed: int) -> ReasoningGymDataModule:
    """The data module that a config file's `data` section describes."""
    datasets = {name: TaskSpec(**spec) for name, spec in config["data"]["datasets"].items()}
    return ReasoningGymDataModule(**{**config["data"], "datasets": datasets}, seed=seed)


def run(course: Course, **changes: Any) -> None:
    """Train to the target, or to the end of the quickstart.

    Args:
        course: filled in.
        changes: the quickstart's sections to use others of.
    """
    quiet()
    config = quickstart() | changes
    with tempfile.TemporaryDirectory() as directory:
        Trainer(
            default_root_dir=directory,
            accelerator="cpu",
            max_steps=config["trainer"]["max_steps"],
            max_epochs=-1,
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            callbacks=[Referee(course)],
        ).fit(module_of(config, course.seed), data_of(config, course.seed))


if __name__ == "__main__":
    main(run, "ours")
