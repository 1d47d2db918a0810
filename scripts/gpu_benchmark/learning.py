"""Run a whole training run as a user would: does it learn on this device, and how soon?"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Trainer, seed_everything
from run_config import build, resolve_settings

from gpu_benchmark import Report
from gpu_benchmark.device import device_of, now
from rl_lightning.callbacks import FixedEval
from rl_lightning.training import StepCallback
from rl_lightning.types import StepRecord

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


class LearningCurve(StepCallback):
    """Reports each evaluation, and ends the run when the target is reached.

    Args:
        evaluation: makes the evaluations.
        target: held-out accuracy.
        report: called with the curve.
    """

    def __init__(self, evaluation: FixedEval, target: float, report: Report) -> None:
        self.evaluation, self.target, self.report = evaluation, target, report
        self.points: list[dict[str, float]] = []
        self.seconds: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        # Not in on_train_start, in which the evaluation before training is made.
        self.began = now(pl_module.device)
        self._add_newest(trainer, pl_module)

    def on_step_end(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        for name, value in pl_module.metrics.items():
            if name in ("time/sample", "time/score", "time/train"):
                self.seconds[name] = self.seconds.get(name, 0.0) + value
        self._add_newest(trainer, pl_module)

    def _add_newest(self, trainer: Trainer, module: Any) -> None:
        latest = self.evaluation.latest
        if latest is None or (self.points and self.points[-1]["step"] == latest["step"]):
            return
        accuracy, seconds = latest["overall"]["accuracy"], round(now(module.device) - self.began, 2)
        self.points.append({"step": latest["step"], "seconds": seconds, "accuracy": accuracy})
        parts = {name: round(value, 3) for name, value in self.seconds.items()}
        self.report(curve=self.points, **parts)
        if latest["step"] and accuracy >= self.target:
            self.report(reached=True, seconds_to_target=seconds, steps_to_target=latest["step"])
            trainer.should_stop = True


def train(job: dict[str, Any], report: Report) -> None:
    """Train by configs/quickstart.yaml on this device, until the target.

    Args:
        job: `device`; `target`, held-out accuracy; `changes`, settings of `sampling`, `data`, `model`, `max_steps` and
            `fixed_eval_steps` that differ from the file's.
    """
    config: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    changes = job["changes"]
    config["model"] |= changes.get("model", {})
    config["model"]["sampling"] |= changes.get("sampling", {})
    config["data"] |= changes.get("data", {})
    report(target=job["target"], reached=False)
    seed_everything(0, verbose=False)
    module, data = build(resolve_settings(config, seed=0))
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
            callbacks=[evaluation, LearningCurve(evaluation, job["target"], report)],
        ).fit(module, data)
