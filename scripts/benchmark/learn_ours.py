"""Train rl_lightning by a config until its held-out accuracy reaches the target."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from lightning.pytorch import Callback, Trainer
from run_config import build, greedy_scores, resolve_settings
from run_config import train as train_module

from benchmark.learning import LearningRun, main
from rl_lightning.cli.quiet import quiet


class Evaluator(Callback):
    """Evaluates, and ends the training at the target."""

    def __init__(self, run: LearningRun) -> None:
        self.run = run

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.run.start(lambda: accuracy(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        trainer.should_stop = self.run.step_ended(trainer.global_step, lambda: accuracy(pl_module))


def accuracy(module: Any) -> float:
    """Accuracy of greedy answers to the held-out problems."""
    batches = module.prompt_source.eval_batches(module.limits.rollout_rows.value)
    return fmean(score.exact for score in greedy_scores(module, batches))


def train(run: LearningRun, config: dict[str, Any]) -> None:
    """Train to the target, or to the config's last step.

    Args:
        run: filled in by this function.
        config: see `benchmark.learning.race_config`.
    """
    quiet()
    module, data = build(resolve_settings(config, run.seed))
    train_module(module, data, Evaluator(run), config["trainer"]["max_steps"])


if __name__ == "__main__":
    main(train, "ours")
