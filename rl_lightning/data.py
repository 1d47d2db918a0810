"""Problems for the trainer: an endless stream of prompts that can be left and taken up again, and a fixed evaluation set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from rl_lightning.curriculum import Course, Curriculum, SuccessRecord
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.tasks.ladders import MOST_SECONDS, REFUSED, candidates, left_out, try_ladders, usable
from rl_lightning.tasks.prompts import SYSTEM_PROMPT, PromptTemplate
from rl_lightning.tasks.stream import (
    FURTHER,
    Prompt,
    PromptStream,
    TaskMixture,
    TaskSpec,
    eval_problems,
    held_out_hashes,
    held_out_share,
)
from rl_lightning.tasks.workers import ProblemWorkers, prompts_from
from rl_lightning.types import Problem, PromptBatch, UserError, require

log = logging.getLogger(__name__)

_STEPS_AHEAD = 3
"""Problems of this many steps are begun before they are needed."""

_LAG_STEPS = _STEPS_AHEAD + 1
"""What a step decides about levels holds this many steps later: when it ends, Lightning holds the next batch ready, and the
problems of the steps after that have been begun."""


class ReasoningGymDataModule(LightningDataModule):
    """Streams reasoning-gym problems as prompts.

    Args:
        datasets: task name to its weight and reasoning-gym configuration; `python -m rl_lightning tasks` lists the names.
        prompts_per_step: B, prompts a training step; each is answered `num_generations` times.
        system_prompt: the system message before every question; empty for none.
        max_prompt_tokens: problems whose prompt is longer are passed over and counted.
        num_workers: processes that make problems ahead of the trainer; 0 makes them in the trainer, without time limit.
        problem_seconds: a problem that takes its worker longer is passed over and counted; > 0.
        eval_num_samples: evaluation problems a task; training never sees their questions.
        eval_seed: which evaluation set.
        seed: which training stream.
        curriculum: difficulty that follows the learner; null leaves every task at its config.

    Raises:
        UserError: a value out of range, or a task or configuration that cannot be used; at set-up, nothing left to train on,
            or no such level to start at.
    """

    def __init__(
        self,
        datasets: dict[str, TaskSpec],
        prompts_per_step: int = 8,
        system_prompt: str = SYSTEM_PROMPT,
        max_prompt_tokens: int = 512,
        num_workers: int = 1,
        problem_seconds: float = 60.0,
        eval_num_samples: int = 50,
        eval_seed: int = 0,
        seed: int = 0,
        curriculum: Curriculum | None = None,
    ) -> None:
        super().__init__()
        least = {"prompts_per_step": 1, "max_prompt_tokens": 1, "num_workers": 0, "eval_num_samples": 1}
        for name, value in zip(
            least, (prompts_per_step, max_prompt_tokens, num_workers, eval_num_samples), strict=True
        ):
            require(f"data.{name}", value, value >= least[name], f"at least {least[name]}")
        require("data.problem_seconds", problem_seconds, problem_seconds > 0, "above 0")
        if curriculum is not None:
            curriculum.check()
        self.mixture = TaskMixture(datasets)
        self.make = ProblemWorkers(self.mixture, num_workers, problem_seconds) if num_workers else self.mixture.problem
        self.prompts_per_step, self.system_prompt, self.max_prompt_tokens = (
            prompts_per_step,
            system_prompt,
            max_prompt_tokens,
        )
        self.eval_num_samples, self.eval_seed, self.seed = eval_num_samples, eval_seed, seed
        self.num_workers, self.problem_seconds, self.curriculum = num_workers, problem_seconds, curriculum
        self.eval_problems: tuple[Problem, ...] = ()
        self._held_out: frozenset[bytes] = frozenset()
        self._candidates: dict[str, list[dict[str, Any]]] = {}
        self.record = SuccessRecord()
        """Success by task and level, with and without a curriculum."""
        self.course: Course | None = None
        """With a curriculum, from `setup` on: each task's level."""
        self.cursor = 0
        """Prompts used so far; `advance` moves it, a checkpoint keeps it."""
        self.further_cursor = 0
        """Prompts used so far out of turn; `further` moves it, a checkpoint keeps it."""

    def setup(self, stage: str) -> None:
        """Find the levels that can be used, draw the evaluation set, and keep its questions out of training."""
        if self.eval_problems:
            return
        module: Any = self.trainer.lightning_module if self.trainer else None
        tokenizer = load_tokenizer(module.policy_config.model_name_or_path)
        self.template = PromptTemplate(tokenizer, self.system_prompt)
        if self.curriculum is not None:
            # A run without a curriculum is asked these, and the two may be compared.
            plain = eval_problems(self.mixture, self.eval_seed, self.eval_num_samples, self.make)
            self._held_out = held_out_hashes(plain)
            self.mixture.climb(self._usable_levels())
            self.teardown(stage)  # the workers have no ladders yet
        self._prepare(stage == "fit")

    def _usable_levels(self) -> dict[str, tuple[dict[str, Any], ...]]:
        """Of each task the levels that can be used; what cannot is named."""
        own, tasks, seconds = self.mixture.levels, self.mixture.tasks, min(self.problem_seconds, MOST_SECONDS)
        self._candidates = {name: candidates(task, own[name]) for name, task in tasks.items()}
        number = sum(len(levels) for levels in self._candidates.values())
        log.warning(f"data.curriculum: trying {number} levels, each for {seconds:g} s at most")
        tried = try_ladders(tasks, self._candidates, seconds, max(self.num_workers, 1), self._is_short)
        for name, rungs in tried.items():
            for rung in rungs if own[name] else ():
                if rung.wrong is not None and rung.wrong.startswith(REFUSED):
                    raise UserError(f"datasets.{name}.levels[{rung.number}]: {rung.wrong}")
            if (line := left_out(name, rungs)) is not None:
                log.warning(line)
        return {name: usable(rungs) for name, rungs in tried.items()}

    def _is_short(self, question: str) -> bool:
        return len(self.template.token_ids(question)) <= self.max_prompt_tokens

    def _prepare(self, fitting: bool) -> None:
        """Evaluation set and stream by the mixture's ladders; report where the evaluation costs much of a task."""
        if self.curriculum is not None:
            levels = {task: len(ladder) for task, ladder in self.mixture.ladders.items()}
            self.course = Course(self.curriculum, levels, self.mixture.weights)
        self.eval_problems = eval_problems(self.mixture, self.eval_seed, self.eval_num_samples, self.make)
        held_out = held_out_hashes(self.eval_problems) | self._held_out
        plan = None if self.course is None else self.course.plan
        self.stream = PromptStream(
            self.mixture, self.template, self.seed, held_out, self.max_prompt_tokens, problem=self.make, plan=plan
        )
        if fitting:
            for task, share in held_out_share(self.mixture, self.seed, held_out, make=self.make).items():
                if share == 1:
                    raise UserError(
                        f"datasets.{task}: nothing left to train on: every problem is held out for evaluation; widen the "
                        "task's config or lower data.eval_num_samples"
                    )
                if share > 0.01:
                    log.warning(
                        f"datasets.{task}: {share:.0%} of its problems are held out for evaluation: a small task"
                    )

    def advance(self, cursor: int, outcomes: Sequence[tuple[Problem, float]]) -> None:
        """A training step has ended: move on, remember, and with a curriculum let the levels follow.

        Args:
            cursor: the stream position after the step.
            outcomes: of every group that was sampled its problem and the share of its answers that are right.
        """
        self.cursor = cursor
        for problem, success in outcomes:
            self.record.add(problem.task, problem.level, success)
        if self.course is not None:
            self.course.learn(outcomes, cursor, lag=self.prompts_per_step * _LAG_STEPS)

    def train_dataloader(self) -> Iterable[PromptBatch]:
        """PromptBatches from the cursor on, without end.

        Raises:
            UserError: the curriculum starts at a level that a task does not have.
        """
        if self.course is not None:
            self.course.refuse_missing_levels()  # not earlier: a run that goes on has the checkpoint's ladders
        return _Batches(self)

    def further(self, count: int) -> PromptBatch:
        """As many prompts out of turn, for a step whose own teach too little. They have slots of their own: what Lightning has
        fetched ahead, and the stream, stay as they are."""
        first = FURTHER + self.further_cursor
        slots = range(first, first + count)
        if isinstance(self.make, ProblemWorkers):
            for slot in slots:
                self.make.begin(*self.stream.candidate(slot))
        self.further_cursor += count
        return collate([self.stream[slot] for slot in slots])

    def val_dataloader(self) -> Any:
        """The evaluation set for `validate`; in `fit`, FixedEval evaluates when it is due, and Lightning's own loop rests."""
        assert self.trainer is not None
        return [] if self.trainer.state.fn == "fit" else DataLoader(self.eval_batches(), batch_size=None)  # type: ignore[arg-type]

    def eval_batches(self, rows: int = 1024) -> list[PromptBatch]:
        """The evaluation set in batches of at most `rows` prompts; none is left out for its length. What a batch takes of the
        memory beside the rollout's own caches is its token ids and draws."""
        prompts = [Prompt(p, self.template.token_ids(p.question), {}) for p in self.eval_problems]
        return [collate(prompts[i : i + rows]) for i in range(0, len(prompts), rows)]

    def teardown(self, stage: str) -> None:
        """Stop the workers; they come back when they are asked."""
        if isinstance(self.make, ProblemWorkers):
            self.make.close()

    def settings(self) -> dict[str, Any]:
        """What decides which prompts come."""
        names = ("prompts_per_step", "system_prompt", "max_prompt_tokens", "eval_num_samples", "eval_seed", "seed")
        tasks = {
            name: {"weight": self.mixture.weights[name], "config": task.config}
            for name, task in self.mixture.tasks.items()
        }
        found = {"datasets": tasks, **{name: getattr(self, name) for name in names}}
        if self.curriculum is not None:
            found |= {"curriculum": asdict(self.curriculum), "levels": self.mixture.levels}
        return found

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, what was learnt on the way, and with a curriculum the levels, the plan and the ladders."""
        where = {"cursor": self.cursor, "further_cursor": self.further_cursor, "seed": self.seed}
        state: dict[str, Any] = {**where, "record": self.record.state()}
        if self.course is not None:
            ladders = {task: list(levels) for task, levels in self.mixture.ladders.items()}
            state |= {"course": self.course.state(), "ladders": ladders, "candidates": self._candidates}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the stream was."""
        self.cursor, self.further_cursor = state_dict["cursor"], state_dict.get("further_cursor", 0)
        self.record.restore(state_dict.get("record", []))  # older checkpoints have neither
        if self.course is None or "course" not in state_dict:
            return
        if state_dict["candidates"] != self._candidates:
            return  # `validate` by another config asks that one's levels; `fit` is refused
        if (ladders := state_dict["ladders"]) != {task: list(levels) for task, levels in self.mixture.ladders.items()}:
            # Which levels are too slow depends on the machine, and on what else it does.
            log.warning("the levels that can be used are not those of the checkpoint: going on with the checkpoint's")
            self.mixture.climb(ladders)
            self.teardown("fit")  # the workers still have the others
            assert self.trainer is not None
            self._prepare(self.trainer.state.fn == "fit")
        self.course.restore(state_dict["course"])


def collate(prompts: Sequence[Prompt]) -> PromptBatch:
    """Right-pad consecutive prompts of a stream into a batch."""
    ids = [torch.tensor(p.token_ids) for p in prompts]
    skipped: dict[str, int] = {}
    for prompt in prompts:
        for reason, count in prompt.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
    return PromptBatch(
        tuple(p.problem for p in prompts),
        pad_sequence(ids, batch_first=True),
        torch.tensor([len(i) for i in ids]),
        prompts[-1].problem.index + 1,
        skipped,
    )


class _Batches:
    """What Lightning iterates over: each time it starts, it starts at the data module's cursor."""

    def __init__(self, data: ReasoningGymDataModule) -> None:
        self.data = data

    def __iter__(self) -> Iterator[PromptBatch]:
        size = self.data.prompts_per_step
        prompts = prompts_from(self.data.stream, self.data.cursor, ahead=size * _STEPS_AHEAD)
        try:
            while True:
                yield collate(list(islice(prompts, size)))
        finally:
            prompts.close()
