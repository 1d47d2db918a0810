"""A whole run as a user makes one: does it learn on this device, and how soon?"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, Trainer, seed_everything

from gpu_benchmark import Report
from gpu_benchmark.device import device_of
from rl_lightning.callbacks import FixedEval
from rl_lightning.data import ReasoningGymDataModule
from rl_lightning.module import GRPOModule
from rl_lightning.objective import Objective
from rl_lightning.policy import PolicyConfig
from rl_lightning.rollout import Sampling
from rl_lightning.scoring import WeightedReward
from rl_lightning.tasks.stream import TaskSpec

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


class Curve(Callback):
    """Reports each evaluation, and ends the run when the target is reached. To stand after FixedEval."""

    def __init__(self, evaluation: FixedEval, target: float, report: Report) -> None:
        self.evaluation, self.target, self.report = evaluation, target, report
        self.points: list[dict[str, float]] = []
        self.seconds: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.began = time.perf_counter()
        self._look(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        for name, value in pl_module.metrics.items():
            if name in ("time/sample", "time/score", "time/train"):
                self.seconds[name] = self.seconds.get(name, 0.0) + value
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        latest = self.evaluation.latest
        if latest is None or (self.points and self.points[-1]["step"] == latest["step"]):
            return
        accuracy, seconds = latest["overall"]["accuracy"], round(time.perf_counter() - self.began, 2)
        self.points.append({"step": latest["step"], "seconds": seconds, "accuracy": accuracy})
        parts = {name: round(value, 3) for name, value in self.seconds.items()}
        self.report(curve=self.points, **parts)
        if latest["step"] and accuracy >= self.target:
            self.report(reached=True, seconds_to_target=seconds, steps_to_target=latest["step"])
            trainer.should_stop = True


def train(job: dict[str, Any], report: Report) -> None:
    """configs/quickstart.yaml on this device, until the target.

    Args:
        job: `device`; `target`, held-out accuracy; `changes`, settings of `sampling`, `data`, `model` and `max_steps` that
            differ from the file's.
    """
    config: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    changes = job["changes"]
    model, data = config["model"] | changes.get("model", {}), config["data"] | changes.get("data", {})
    report(target=job["target"], reached=False)
    seed_everything(0, verbose=False)
    module = GRPOModule(
        policy=PolicyConfig(**model.pop("policy")),
        sampling=Sampling(**model.pop("sampling") | changes.get("sampling", {})),
        objective=Objective(**model.pop("objective")),
        reward=WeightedReward(**model.pop("reward")["init_args"]),
        **model,
    )
    tasks = {name: TaskSpec(**spec) for name, spec in data.pop("datasets").items()}
    evaluation = FixedEval(changes.get("fixed_eval_steps", 10))
    with tempfile.TemporaryDirectory() as directory:
        Trainer(
            default_root_dir=directory,
            accelerator="gpu" if device_of(job["device"]).type == "cuda" else "cpu",
            devices=1,
            max_steps=changes.get("max_steps", config["trainer"]["max_steps"]),
            max_epochs=-1,
            logger=False,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[evaluation, Curve(evaluation, job["target"], report)],
        ).fit(module, ReasoningGymDataModule(tasks, **data))
