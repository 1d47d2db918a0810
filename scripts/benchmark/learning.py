"""The quickstart as a race: how long a side trains until its greedy held-out accuracy reaches a target.

Both sides take from configs/quickstart.yaml the model, 4-bit base, adapters, tasks, prompts in their order, group size, lengths,
reward, objective and learning rate. Both evaluate the same problems greedily after the same steps. The clock runs while a side
trains and stands still while it evaluates; neither writes logs, rollouts or checkpoints.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from stopwatch import Stopwatch

from benchmark.work import QUICKSTART


def quickstart() -> dict[str, Any]:
    """configs/quickstart.yaml, with one update a rollout: what TRL's settings in `benchmark.sides` say."""
    config: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    config["model"]["objective"]["num_iterations"] = 1
    return config


@dataclass
class Course:
    """One side's way to the target.

    Attributes:
        side: ours or peer.
        seed: of sampling, adapters and the prompt stream.
        every: steps between two evaluations.
        target: accuracy at which it ends.
        reached: whether it got there.
        training_seconds: from the first step on, without evaluations.
        evaluation_seconds: those.
        evaluations: step, training seconds by then, and greedy accuracy; the first is before any training.
    """

    side: str
    seed: int
    every: int
    target: float
    reached: bool = False
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    evaluations: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._watch = Stopwatch()

    def begin(self, evaluate: Callable[[], float]) -> None:
        """Before the first step."""
        self._evaluate(0, evaluate)

    def step_ended(self, step: int, evaluate: Callable[[], float]) -> bool:
        """After each step; whether the target is reached."""
        self._watch.lap()
        self.training_seconds = self._watch.training
        if step % self.every == 0:
            self._evaluate(step, evaluate)
        return self.reached

    def _evaluate(self, step: int, evaluate: Callable[[], float]) -> None:
        with self._watch.pause():
            accuracy = evaluate()
        self.evaluation_seconds = self._watch.paused
        self.evaluations.append({"step": step, "training_seconds": self.training_seconds, "accuracy": accuracy})
        self.reached = accuracy >= self.target


def main(run: Callable[[Course], None], side: str) -> None:
    """The command line of a side's process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    course = Course(side, args.seed, args.every, args.target)
    run(course)
    args.out.write_text(json.dumps(asdict(course)), encoding="utf-8")
