"""Train by a config until the greedy held-out accuracy reaches a target, with either side's trainer, and time it.

Both sides take from the config the model, its quantization, adapters, tasks, prompts in the same order, group size, lengths,
reward, objective and learning rate. Both evaluate the same problems greedily after the same steps. The clock runs while a side
trains and is paused while it evaluates; neither writes logs, rollouts or checkpoints.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from training_clock import TrainingClock

from benchmark.side_report import resident
from benchmark.workloads import model_of, read_config
from rl_lightning.types import UserError

RACES = ("quickstart", "smollm2-135m")
"""The configs that both sides can be trained by."""


def quickstart() -> dict[str, Any]:
    """configs/quickstart.yaml, with one update per rollout, as in TRL's settings in `benchmark.shared_settings`."""
    return race_config("quickstart")


def race_config(name: str, steps: int = 0) -> dict[str, Any]:
    """A config of configs/ with what both sides must share: one update per rollout, no warm-up of the learning rate, and a model
    that is on the disk.

    Without a GPU, TRL dequantises every weight again for every token, so a larger model than the bundled one is not quantised on
    either side.

    Args:
        name: one of `RACES`.
        steps: the number of steps in place of the config's; 0 for that one.

    Raises:
        UserError: the model is not there, or the config has what TRL lacks.
    """
    config = read_config(name)
    config["model"]["objective"]["num_iterations"] = 1
    config["model"]["warmup_steps"] = 0  # the two sides' schedules begin it differently
    config["trainer"]["max_steps"] = steps or config["trainer"]["max_steps"]
    if config["model"].get("sft_steps"):
        raise UserError(f"{name}: TRL's GRPOTrainer has no supervised steps; set model.sft_steps to 0")
    if name != "quickstart":
        config["model"]["policy"] |= {"model_name_or_path": model_of(config), "quantization": "none"}
    return config


@dataclass
class LearningRun:
    """One side's training up to the target.

    Attributes:
        side: ours or peer.
        seed: the seed for sampling, adapters and the prompt stream.
        every: steps between two evaluations.
        target: accuracy at which it ends; above 1, it makes all its steps.
        reached: whether it got there.
        training_seconds: from the first step on, without evaluations.
        evaluation_seconds: seconds of all evaluations.
        evaluations: step, training seconds by then, and greedy accuracy; the first is before any training.
        peak: the most bytes that its process had in memory at a time, evaluations included.
    """

    side: str
    seed: int
    every: int
    target: float
    reached: bool = False
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    evaluations: list[dict[str, float]] = field(default_factory=list)
    peak: int = 0

    def __post_init__(self) -> None:
        self._clock = TrainingClock()

    def start(self, evaluate: Callable[[], float]) -> None:
        """To be called before the first step."""
        self._evaluate(0, evaluate)

    def step_ended(self, step: int, evaluate: Callable[[], float]) -> bool:
        """To be called after each step; whether the target is reached."""
        self._clock.step_ended()
        self.training_seconds = self._clock.training
        if step % self.every == 0:
            self._evaluate(step, evaluate)
        return self.reached

    def _evaluate(self, step: int, evaluate: Callable[[], float]) -> None:
        with self._clock.pause():
            accuracy = evaluate()
        self.evaluation_seconds = self._clock.paused
        self.evaluations.append({"step": step, "training_seconds": self.training_seconds, "accuracy": accuracy})
        self.reached = accuracy >= self.target


def main(train: Callable[[LearningRun, dict[str, Any]], None], side: str) -> None:
    """The command line of a side's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", choices=RACES, required=True)
    parser.add_argument("--steps", type=int, required=True, help="at most; 0: as many as the config says")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    run = LearningRun(side, args.seed, args.every, args.target)
    train(run, race_config(args.config, args.steps))
    run.peak = resident("VmHWM")
    args.out.write_text(json.dumps(asdict(run)), encoding="utf-8")
