"""The endless, seekable stream of prompts: number k is a pure function of (seed, k), and of the plan of levels where there is one.

Item seeds (32 bits) are divided so that no two uses can meet:

    [0, 2^30)          training
    [2^30, 2^31)       the tiny policy's own schooling
    [2^31, 2^31+2^30)  evaluation

Slot k of a stream asks for item seed start + k. Where that problem is an evaluation problem, or its prompt is too long, the
slot tries start + k + STRIDE, then + 2 STRIDE, …: so slots never depend on each other, any worker can make any of them, and no
item is used twice as long as k < STRIDE.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

from torch.utils.data import Dataset

from rl_lightning.curriculum.plan import Plan, draw_task
from rl_lightning.tasks.generator import Task, Unmade, check_keys
from rl_lightning.tasks.prompts import PromptTemplate
from rl_lightning.types import Problem, UserError

Split = Literal["train", "schooling", "eval"]

MakeProblem = Callable[[str, int, int, int | None], Problem]
"""Task, item seed, index and level (None for the task's own config) to the problem; raises Unmade."""

_RANGES: dict[Split, tuple[int, int]] = {"train": (0, 2**30), "schooling": (2**30, 2**30), "eval": (2**31, 2**30)}
STRIDE = 2**24
FURTHER = STRIDE // 2
"""The slot of the first prompt that is asked for out of turn; the stream itself does not come so far."""
ATTEMPTS = 64


@dataclass
class TaskSpec:
    """One task of the mixture."""

    weight: float = 1.0
    """Share of the problems, relative to the other tasks' weights; > 0."""

    config: dict[str, Any] = field(default_factory=dict)
    """reasoning-gym's configuration of the task; `python -m rl_lightning tasks NAME` prints the keys."""

    levels: list[dict[str, Any]] = field(default_factory=list)
    """With `data.curriculum`: the task's levels, the easiest first, each with the config keys that it lays over `config`; none for
    those of reasoning-gym's curriculum, which `python -m rl_lightning tasks NAME --levels` shows."""


@dataclass(frozen=True)
class Prompt:
    """A problem with its prompt's token ids and what was passed over to find it, by reason."""

    problem: Problem
    token_ids: tuple[int, ...]
    skipped: dict[str, int]


class TaskMixture:
    """Several tasks, drawn by weight.

    Args:
        datasets: task name to TaskSpec.

    Raises:
        UserError: no task, a weight that is not positive, a level with a key that the task does not have, or whatever `Task`
            refuses.
    """

    def __init__(self, datasets: Mapping[str, TaskSpec]) -> None:
        if not datasets:
            raise UserError("datasets: empty; name at least one task, e.g. {chain_sum: {weight: 1}}")
        self.tasks = {name: Task(name, spec.config) for name, spec in datasets.items()}
        self.weights = {name: spec.weight for name, spec in datasets.items()}
        for name, weight in self.weights.items():
            if not weight > 0:
                raise UserError(f"datasets.{name}.weight: {weight} is not positive; leave the task out instead")
        self.levels = {name: list(spec.levels) for name, spec in datasets.items()}
        """As the user gave them; whether they can be used is yet to be seen."""
        for name, levels in self.levels.items():
            for number, level in enumerate(levels):
                check_keys(name, level, f"datasets.{name}.levels[{number}]")
        self.ladders: dict[str, tuple[dict[str, Any], ...]] = {}
        self._made: dict[tuple[str, int], Task] = {}

    def climb(self, ladders: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Give tasks their ladders: of each task the whole configs of its levels, the easiest first."""
        self.ladders = {name: tuple(dict(level) for level in levels) for name, levels in ladders.items() if levels}
        # All at once: made when the first answer is scored, a dataset's making would count as the scorer's time.
        self._made = {
            (name, number): self.tasks[name].configured(level)
            for name, levels in self.ladders.items()
            for number, level in enumerate(levels)
        }

    def at(self, task: str, level: int | None) -> Task:
        """The task at a level of its ladder; None is its own config."""
        if level is None:
            return self.tasks[task]
        return self._made[task, level]

    def draw(self, seed: int, slot: int) -> Task:
        """The task of a slot, a pure function of (seed, slot)."""
        return self.tasks[draw_task(self.weights, seed, slot)]

    def problem(self, task: str, item_seed: int, index: int, level: int | None = None) -> Problem:
        """The task's problem drawn from `item_seed`, at a level of its ladder; see `Task.problem`."""
        return replace(self.at(task, level).problem(item_seed, index), level=level)

    def scores(self, asked: Sequence[tuple[Problem, str]]) -> list[float | str]:
        """reasoning-gym's scores of (problem, answer) pairs; for each that its scorer raises on, "raised_" and the error's name."""
        return [self._score(problem, answer) for problem, answer in asked]

    def _score(self, problem: Problem, answer: str) -> float | str:
        task = self.at(problem.task, problem.level)
        try:
            return float(task.score(answer, problem.entry))
        except BaseException as error:  # scorers raise SystemExit, RecursionError and others on a model's text
            return f"raised_{type(error).__name__}"


def question_hash(task: str, question: str) -> bytes:
    """8 bytes by which an evaluation problem is recognised in the training stream."""
    return hashlib.blake2b(f"{task}\0{question}".encode(), digest_size=8).digest()


class PromptStream(Dataset[Prompt]):
    """The training stream: `stream[k]` for any k in [0, STRIDE).

    Args:
        mixture: where problems come from.
        template: question to token ids.
        seed: which of the many streams.
        held_out: `question_hash` of every problem that must not appear.
        max_prompt_tokens: prompts longer than this are passed over.
        split: the range of item seeds.
        problem: makes a problem from task, item seed, index and level; by default the mixture, in this process.
        plan: each slot's task and level; by default the mixture's weights, and every task at its own config.
    """

    def __init__(
        self,
        mixture: TaskMixture,
        template: PromptTemplate,
        seed: int,
        held_out: frozenset[bytes] = frozenset(),
        max_prompt_tokens: int = 512,
        split: Split = "train",
        problem: MakeProblem | None = None,
        plan: Plan | None = None,
    ) -> None:
        self.mixture, self.template, self.seed, self.plan = mixture, template, seed, plan
        self.problem = problem or mixture.problem
        self.held_out, self.max_prompt_tokens, self.split = held_out, max_prompt_tokens, split

    def __getitem__(self, slot: int) -> Prompt:
        """Prompt number `slot`.

        Raises:
            UserError: none of ATTEMPTS candidates may be used.
        """
        skipped, failure = {"held_out": 0, "too_long": 0, "raised": 0, "too_slow": 0}, ""
        for attempt in range(ATTEMPTS):
            task, seed, _, _ = wanted = self.candidate(slot, attempt)
            try:
                problem = self.problem(*wanted)
            except Unmade as error:
                skipped[error.reason] += 1
                failure = f" (item seed {seed}: {error.detail})"
                continue
            if question_hash(task, problem.question) in self.held_out:
                skipped["held_out"] += 1
                continue
            token_ids = self.template.token_ids(problem.question)
            if len(token_ids) <= self.max_prompt_tokens:
                return Prompt(problem, token_ids, skipped)
            skipped["too_long"] += 1
        raise UserError(
            f"datasets.{task}: nothing left to train on: of {ATTEMPTS} problems {skipped['held_out']} are held out for evaluation, "
            f"{skipped['too_long']} are longer than max_prompt_tokens ({self.max_prompt_tokens}), {skipped['raised']} failed in "
            f"the task's generator and {skipped['too_slow']} took it too long{failure}; widen the task's config, lower "
            "eval_num_samples or raise max_prompt_tokens"
        )

    def candidate(self, slot: int, attempt: int = 0) -> tuple[str, int, int, int | None]:
        """Task, item seed, index and level of the problem that `slot` tries at its `attempt`-th candidate."""
        seed = item_seed(self.split, self.seed, slot, attempt)
        if self.plan is None:
            return self.mixture.draw(self.seed, slot).name, seed, slot, None
        task, level = self.plan.draw(self.seed, slot, in_turn=slot < FURTHER)
        return task, seed, slot, level


def item_seed(split: Split, seed: int, slot: int, attempt: int) -> int:
    """The item seed that slot `slot` of stream `seed` tries at its `attempt`-th candidate."""
    first, size = _RANGES[split]
    start = int.from_bytes(hashlib.blake2b(f"{split}:{seed}".encode(), digest_size=8).digest(), "big")
    return first + (start + slot + attempt * STRIDE) % size


def eval_problems(
    mixture: TaskMixture, seed: int, per_task: int, make: MakeProblem | None = None
) -> tuple[Problem, ...]:
    """`per_task` problems of each task with different questions, the same for the same arguments; of a task with a ladder spread
    evenly over its levels, from easy to hard.

    A task or level whose universe is too small gives as many as can be found in ATTEMPTS draws a problem.
    """
    problems: list[Problem] = []
    for task in mixture.tasks:
        questions: set[str] = set()
        slots = iter(range(per_task * ATTEMPTS))
        for level, wanted in _spread(per_task, len(mixture.ladders.get(task, ()))):
            goal = len(questions) + wanted
            for slot in islice(slots, wanted * ATTEMPTS):
                try:
                    problem = (make or mixture.problem)(task, item_seed("eval", seed, slot, 0), len(questions), level)
                except Unmade:
                    continue  # and the next seed takes its place
                if problem.question not in questions:
                    questions.add(problem.question)
                    problems.append(problem)
                if len(questions) == goal:
                    break
    return tuple(problems)


def _spread(problems: int, levels: int) -> list[tuple[int | None, int]]:
    """How many of some problems each level gets; None is a task without levels."""
    if not levels:
        return [(None, problems)]
    found = Counter(number * levels // problems for number in range(problems))
    return [(level, found[level]) for level in sorted(found)]


def held_out_hashes(problems: Sequence[Problem]) -> frozenset[bytes]:
    """The hashes by which `PromptStream` recognises these problems."""
    return frozenset(question_hash(p.task, p.question) for p in problems)


def held_out_share(
    mixture: TaskMixture,
    seed: int,
    held_out: frozenset[bytes],
    candidates: int = 64,
    seconds: float = 1.0,
    make: MakeProblem | None = None,
) -> dict[str, float]:
    """Of each task, or of each of its levels, the share of training candidates that ask a held-out question, by a sample.

    Args:
        mixture: the tasks.
        seed: the training stream's.
        held_out: hashes of the evaluation's questions.
        candidates: at most this many a task are drawn.
        seconds: and no more of a task once this time is over, for some take a quarter of a second a problem.

    Returns:
        share by name, such as "chain_sum", or where it has a ladder "chain_sum, level 0".
    """
    shares: dict[str, float] = {}
    for name in mixture.tasks:
        levels: list[int | None] = list(range(len(mixture.ladders.get(name, ())))) or [None]
        for level in levels:
            hits, made, began = 0, 0, time.monotonic()
            for slot in range(candidates):
                if slot >= 2 and time.monotonic() - began > seconds / len(levels):
                    break
                try:
                    wanted = item_seed("train", seed, slot, ATTEMPTS - 1)
                    problem = (make or mixture.problem)(name, wanted, slot, level)
                except Unmade:
                    continue
                hits += question_hash(name, problem.question) in held_out
                made += 1
            label = name if level is None else f"{name}, level {level}"
            shares[label] = hits / made if made else 0.0
    return shares
