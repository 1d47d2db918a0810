"""Do one run in a separate process: train for a number of seconds, and evaluate at intervals while the clock is paused.

    python -m ablation.run --settings JSON --out FILE

Prints each evaluation as a line of JSON on standard output, and writes them all to FILE at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch import Trainer
from machine import machine_info
from run_config import build, greedy_scores, train
from training_clock import TrainingClock

from rl_lightning.checkpointing.atomic_files import write_json
from rl_lightning.environments.batches import collate
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.question_hash import question_hash
from rl_lightning.environments.stream import Prompt, eval_problems, held_out_hashes
from rl_lightning.training import StepCallback
from rl_lightning.types import StepRecord, UserError

Evaluation = dict[str, Any]


class Evaluator(StepCallback):
    """Evaluates on the experiment's held-out problems, whatever the variant trains on, and ends the run when its time is over.

    Args:
        settings: the settings of a Run.
        report: called with each evaluation.

    Attributes:
        evaluations: each with `step` (training steps, each of one rollout), `seconds` (of training), `sampled` and
            `with_advantage` (completions sampled in training, whether they were trained on or not, and those among them whose
            advantage was not zero), `accuracy` and `tasks` (accuracy by task).
        clock: the seconds of training and of evaluation.
    """

    def __init__(self, settings: dict[str, Any], report: Callable[[Evaluation], None]) -> None:
        self.settings, self.report = settings, report
        self.evaluations: list[Evaluation] = []
        self.clock = TrainingClock()
        self.steps = self.sampled = self.with_advantage = 0

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Draw the problems and keep them out of training, even if the variant's own tasks are different."""
        suite, data = self.settings["suite"], trainer.datamodule  # type: ignore[attr-defined]
        tasks = EnvironmentMixture({name: TaskSpec(config=config) for name, config in suite["datasets"].items()})
        self.problems = eval_problems(tasks, suite["seed"], suite["problems"])
        self.held_out = held_out_hashes(self.problems)
        data.stream.held_out |= self.held_out
        self.batch = collate([Prompt(p, data.template.token_ids(p.question), {}) for p in self.problems])

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._evaluate(pl_module)

    def on_step_end(self, trainer: Trainer, pl_module: Any, record: StepRecord) -> None:
        self.clock.step_ended()
        self.steps += 1
        self.sampled += len(record.rollouts.rollout.texts)
        self.with_advantage += int(record.advantages.count_nonzero())
        trained = record.rollouts.prompts.problems
        if not self.held_out.isdisjoint(question_hash(p.question) for p in trained):
            raise RuntimeError("a held-out problem was trained on")
        trainer.should_stop = self.clock.training >= self.settings["seconds"]
        if trainer.should_stop or self.steps % self.settings["every"] == 0:
            self._evaluate(pl_module)

    def _evaluate(self, module: Any) -> None:
        with self.clock.pause():
            exact = [score.exact for score in greedy_scores(module, [self.batch])]
        by_task: dict[str, list[float]] = {}
        for problem, right in zip(self.problems, exact, strict=True):
            by_task.setdefault(problem.task, []).append(right)
        self.evaluations.append(
            {
                "step": self.steps,
                "seconds": self.clock.training,
                "sampled": self.sampled,
                "with_advantage": self.with_advantage,
                "accuracy": fmean(exact),
                "tasks": {task: fmean(values) for task, values in by_task.items()},
            }
        )
        self.report(self.evaluations[-1])


def run(settings: dict[str, Any], report: Callable[[Evaluation], None]) -> dict[str, Any]:
    """Train with these settings; the result as it is written.

    Raises:
        UserError: settings that the module or the data module refuses.
    """
    torch.set_num_threads(settings["threads"])
    evaluator = Evaluator(settings, report)
    module, data = build(settings)
    train(module, data, evaluator)
    return {
        "machine": machine_info(settings["threads"]),
        "levels": {task: len(levels) for task, levels in data.mixture.levels_of.items()},
        "evaluation_seconds": evaluator.clock.paused,
        "evaluations": evaluator.evaluations,
    }


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", required=True, help="settings of an ablation.experiments.Run, as JSON")
    parser.add_argument("--out", type=Path, required=True, help="file for the result")
    args = parser.parse_args()
    if args.out.exists():
        print(f"{args.out}: exists already", file=sys.stderr)
        return 1
    settings = json.loads(args.settings)
    try:
        result = run(settings, lambda evaluation: print(json.dumps(evaluation), flush=True))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    write_json(args.out, {"settings": settings, **result})
    return 0


if __name__ == "__main__":
    sys.exit(main())
