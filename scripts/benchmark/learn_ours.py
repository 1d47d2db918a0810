"""rl_lightning's side of the race."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from lightning.pytorch import Callback, Trainer
from training import greedy_scores, made, resolved, train

from benchmark.learning import Course, main, quickstart
from rl_lightning.cli import quiet


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
    return fmean(score.exact for score in greedy_scores(module, batches))


def run(course: Course, **changes: Any) -> None:
    """Train to the target, or to the end of the quickstart.

    Args:
        course: filled in.
        changes: the quickstart's sections to use others of.
    """
    quiet()
    config = quickstart() | changes
    module, data = made(resolved(config, course.seed))
    train(module, data, Referee(course), config["trainer"]["max_steps"])


if __name__ == "__main__":
    main(run, "ours")
