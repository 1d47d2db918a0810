"""The run's evaluation problems and worked examples, made again, and its prompts by any tokenizer."""

from __future__ import annotations

from typing import Any

import torch

from rl_lightning.checkpointing.checkpoints import STATE_FILE
from rl_lightning.environments.chat_text import Turn
from rl_lightning.environments.examples import worked_examples
from rl_lightning.environments.mixture import EnvironmentMixture
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.stream import eval_problems, held_out_hashes
from rl_lightning.evaluation import read_result, stored_suite
from rl_lightning.export.source import Source
from rl_lightning.types import Problem, UserError


class RunPrompts:
    """How a run asked.

    Args:
        source: the checkpoint and its run.

    Attributes:
        mixture: the tasks, with the levels that the run had.
        problems: those of the evaluation.
        examples: worked examples by task, as its evaluation shows them.

    Raises:
        UserError: a task cannot be used here.
    """

    def __init__(self, source: Source) -> None:
        self._source, prompt = source, source.prompt
        self.mixture = EnvironmentMixture(dict(source.datasets))
        self.problems = eval_problems(self.mixture, source.eval_seed, source.eval_num_samples)
        held_out = held_out_hashes(self.problems)
        if levels := _levels(source):
            self.mixture.set_levels(levels)
            self.problems = eval_problems(self.mixture, source.eval_seed, source.eval_num_samples)
            held_out |= held_out_hashes(self.problems)
        shows = prompt.always_shows_examples and (prompt.examples or any(prompt.own_examples.values()))
        self.examples: dict[str, list[Turn]] = (
            worked_examples(self.mixture, prompt, source.eval_seed, held_out) if shows else {}
        )

    def template(self, tokenizer: Any) -> PromptTemplate:
        """The prompts of the evaluation by a tokenizer and its chat template."""
        template = self._source.prompt.template(tokenizer)
        template.show(self.examples)
        return template

    def choose(self, number: int | None) -> list[Problem]:
        """So many problems of the evaluation, of every task about as many; None: all of them."""
        place: dict[str, int] = {}
        order = []
        for problem in self.problems:
            place[problem.task] = place.get(problem.task, -1) + 1
            order.append((place[problem.task], problem))
        chosen = [problem for _, problem in sorted(order, key=lambda each: each[0])[:number]]
        return sorted(chosen, key=lambda problem: (problem.task, problem.index))

    def refuse_others(self) -> None:
        """Refuse to verify by other problems than those of the run's evaluation.

        Raises:
            UserError: the run was evaluated on others.
        """
        directory, step = self._source.run / "eval_results", self._source.step
        files = {int(file.stem.rpartition("_")[2]): file for file in directory.glob("eval_step_*.json")}
        if not (earlier := [each for each in files if each <= step]):
            return
        suite = stored_suite(directory, read_result(files[max(earlier)])["suite"])
        if suite is None:
            return
        then = {(each["task"], each["index"], each["question"]) for each in suite.problems}
        if then != {(each.task, each.index, each.question) for each in self.problems}:
            raise UserError(
                f"export: {directory} has other evaluation problems than its config gives here, for instance because of another "
                "version of reasoning-gym; --no-verify exports without the verification"
            )


def _levels(source: Source) -> dict[str, list[dict[str, Any]]]:
    """The levels of a run with a curriculum by task; {} without."""
    state = torch.load(source.checkpoint / STATE_FILE, map_location="cpu", weights_only=True, mmap=True)
    return dict(state.get("PromptDataModule", {}).get("levels_of", {}))
