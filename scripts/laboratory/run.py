"""One run, in a process of its own: train for so many seconds, evaluate now and then while the clock stands still.

    python -m laboratory.run --settings JSON --out FILE

Says each evaluation in a line of JSON on standard output, and writes them all to FILE at the end.
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
from lightning.pytorch import Callback, Trainer
from machine import machine
from stopwatch import Stopwatch
from training import greedy_scores, made, train

from rl_lightning.data import collate
from rl_lightning.module import GRPOModule
from rl_lightning.tasks.stream import Prompt, TaskMixture, TaskSpec, eval_problems, held_out_hashes, question_hash
from rl_lightning.types import PromptBatch, Rollout, UserError
from rl_lightning.whole_files import write_json

Evaluation = dict[str, Any]


class Counting(GRPOModule):
    """Counts what it samples in training, whether it is learnt from or thrown away.

    Attributes:
        sampled: completions.
    """

    sampled = 0

    def roll(self, batch: PromptBatch, sampling: Any, draws: Any, prompts_at_once: int | None = None) -> Rollout:
        """As GRPOModule; greedy ones are an evaluation's."""
        rollout = super().roll(batch, sampling, draws, prompts_at_once)
        self.sampled += 0 if draws is None else len(rollout.texts)
        return rollout


class Referee(Callback):
    """Asks the course's held-out problems, whatever the variant trains on, and ends the run when its time is over.

    Args:
        settings: of a Run.
        say: what to do with each evaluation.

    Attributes:
        evaluations: each with `step` (training steps, each of one rollout), `seconds` (of training), `sampled` and `taught`
            (completions, and those among them that had an advantage), `accuracy` and `tasks` (accuracy by task).
        watch: the clock.
    """

    def __init__(self, settings: dict[str, Any], say: Callable[[Evaluation], None]) -> None:
        self.settings, self.say = settings, say
        self.evaluations: list[Evaluation] = []
        self.watch = Stopwatch()
        self.steps = self.taught = 0

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Draw the problems and keep them out of training, also where the variant's own tasks are others."""
        suite, data = self.settings["suite"], trainer.datamodule  # type: ignore[attr-defined]
        tasks = TaskMixture({name: TaskSpec(config=config) for name, config in suite["datasets"].items()})
        self.problems = eval_problems(tasks, suite["seed"], suite["problems"])
        self.held_out = held_out_hashes(self.problems)
        data.stream.held_out |= self.held_out
        self.batch = collate([Prompt(p, data.template.token_ids(p.question), {}) for p in self.problems])

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._evaluate(pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.watch.lap()
        self.steps += 1
        record = outputs["record"]
        self.taught += int(record.advantages.count_nonzero())
        if not self.held_out.isdisjoint(question_hash(p.task, p.question) for p in record.groups.batch.problems):
            raise RuntimeError("a held-out problem was trained on")
        trainer.should_stop = self.watch.training >= self.settings["seconds"]
        if trainer.should_stop or self.steps % self.settings["every"] == 0:
            self._evaluate(pl_module)

    def _evaluate(self, module: Any) -> None:
        with self.watch.pause():
            exact = [score.exact for score in greedy_scores(module, [self.batch])]
        by_task: dict[str, list[float]] = {}
        for problem, right in zip(self.problems, exact, strict=True):
            by_task.setdefault(problem.task, []).append(right)
        figures = {"step": self.steps, "seconds": self.watch.training, "sampled": module.sampled, "taught": self.taught}
        tasks = {task: fmean(values) for task, values in by_task.items()}
        self.evaluations.append({**figures, "accuracy": fmean(exact), "tasks": tasks})
        self.say(self.evaluations[-1])


def run(settings: dict[str, Any], say: Callable[[Evaluation], None]) -> dict[str, Any]:
    """Train by these settings; the result as it is written.

    Raises:
        UserError: settings that the trainer refuses.
    """
    torch.set_num_threads(settings["threads"])
    referee = Referee(settings, say)
    module, data = made(settings, Counting)
    train(module, data, referee)
    return {
        "machine": machine(settings["threads"]),
        "levels": {task: len(levels) for task, levels in data.mixture.ladders.items()},
        "evaluation_seconds": referee.watch.paused,
        "evaluations": referee.evaluations,
    }


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", required=True, help="of a laboratory.courses.Run, as JSON")
    parser.add_argument("--out", type=Path, required=True, help="the result")
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
