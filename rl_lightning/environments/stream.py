"""The endless, seekable stream of prompts: prompt k is a pure function of (seed, k), and of the level schedule if there is one.

Item seeds (32 bits) are divided into ranges, so that no two uses share one:

    [0, 2^30)          training
    [2^30, 2^31)       supervised training of the tiny policy
    [2^31, 2^31+2^30)  evaluation
    [2^31+2^30, 2^32)  worked examples in prompts

Slot k of a stream uses item seed start + k. If that problem is an evaluation problem, or its prompt is too long, the slot tries
start + k + STRIDE, then + 2 STRIDE, and so on. So slots never depend on each other, any worker can generate any of them, and no
item is used twice as long as k < STRIDE.

A task with a limited number of problems has their numbers in place of item seeds: the evaluation's are the first ones of an order
that its seed decides, the examples' the last ones, and the k-th slot of the task gets the k-th of the others in the order of
(seed, epoch).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Literal

from torch.utils.data import Dataset

from rl_lightning.curriculum.schedule import LevelSchedule
from rl_lightning.environments.environment import GenerationFailed
from rl_lightning.environments.finite import EpochOrder, Ordinals, Permutation
from rl_lightning.environments.mixture import EnvironmentMixture
from rl_lightning.environments.prompts import PromptTemplate
from rl_lightning.environments.question_hash import question_hash
from rl_lightning.types import Problem, UserError

Split = Literal["train", "sft", "eval", "examples"]

MakeProblem = Callable[[str, int, int, int | None], Problem]
"""From task, item seed, index and level (None for the task's own config) to the problem; raises GenerationFailed."""

_RANGES: dict[Split, tuple[str, int, int]] = {
    "train": ("train", 0, 2**30),
    "sft": ("schooling", 2**30, 2**30),
    "eval": ("eval", 2**31, 2**30),
    "examples": ("examples", 2**31 + 2**30, 2**30),
}
"""For each split: the label that its start is derived from, the first item seed, and the number of item seeds. The shipped tiny
policy was trained with the label of "sft", so it must not change."""

STRIDE = 2**24
EXTRA_SLOTS = STRIDE // 2
"""The slot of the first extra prompt; the stream itself never gets that far."""
ATTEMPTS = 64


@dataclass(frozen=True)
class Prompt:
    """A problem with its prompt's token ids, and how many candidates were skipped before it, by reason."""

    problem: Problem
    token_ids: tuple[int, ...]
    skipped: dict[str, int]


class PromptStream(Dataset[Prompt]):
    """The training stream: `stream[k]` for any k in [0, STRIDE).

    Args:
        mixture: the environments.
        template: renders a question as token ids.
        seed: selects the stream.
        held_out: `question_hash` of every problem that must not appear.
        max_prompt_tokens: problems with a longer prompt are skipped.
        split: the range of item seeds.
        problem: generates a problem from task, item seed, index and level; by default the mixture, in this process.
        schedule: the task and level of each slot; by default tasks are drawn by the mixture's weights, with their own configs.
        also: a second template, by which a prompt must not be longer either.
        orders: of the tasks with a limited number of problems; see `held_out.epoch_orders`.
    """

    def __init__(
        self,
        mixture: EnvironmentMixture,
        template: PromptTemplate,
        seed: int,
        held_out: frozenset[bytes] = frozenset(),
        max_prompt_tokens: int = 512,
        split: Split = "train",
        problem: MakeProblem | None = None,
        schedule: LevelSchedule | None = None,
        also: PromptTemplate | None = None,
        orders: Mapping[str, EpochOrder] = MappingProxyType({}),
    ) -> None:
        self.mixture, self.template, self.seed, self.schedule = mixture, template, seed, schedule
        self.also = None if also is template else also
        self.orders, self._ordinals = orders, Ordinals(lambda slot: mixture.draw(seed, slot))
        self.problem = problem or mixture.problem
        self.held_out, self.max_prompt_tokens, self.split = held_out, max_prompt_tokens, split

    def __getitem__(self, slot: int) -> Prompt:
        """The prompt of a slot.

        Raises:
            UserError: none of ATTEMPTS candidates can be used.
        """
        skipped, failure = Counter({"held_out": 0, "too_long": 0, "wrong_answer": 0, "raised": 0, "too_slow": 0}), ""
        for attempt in range(ATTEMPTS):
            task, seed, _, _ = candidate = self.candidate(slot, attempt)
            try:
                problem = self.problem(*candidate)
            except GenerationFailed as error:
                skipped[error.reason] += 1
                failure = f" (item seed {seed}: {error.detail})"
                continue
            if question_hash(problem.question) in self.held_out:
                skipped["held_out"] += 1
                continue
            token_ids = self.template.token_ids(problem.question, task)
            longest = (
                token_ids if self.also is None else max(token_ids, self.also.token_ids(problem.question, task), key=len)
            )
            if len(longest) <= self.max_prompt_tokens:
                return Prompt(problem, token_ids, dict(skipped))
            skipped["too_long"] += 1
        raise UserError(
            f"datasets.{task}: nothing left to train on: of {ATTEMPTS} problems {skipped['held_out']} are held out for "
            f"evaluation, {skipped['wrong_answer']} have a wrong answer, "
            f"{skipped['too_long']} are longer than max_prompt_tokens ({self.max_prompt_tokens}), {skipped['raised']} failed in "
            f"the task's generator and {skipped['too_slow']} took too long{failure}; widen the task's config, lower "
            "eval_num_samples, raise max_prompt_tokens or show fewer data.examples"
        )

    def candidate(self, slot: int, attempt: int = 0) -> tuple[str, int, int, int | None]:
        """Task, item seed, index and level of a slot's `attempt`-th candidate problem, counted from 0."""
        task, level = self.mixture.draw(self.seed, slot), None
        if self.schedule is not None:
            task, level = self.schedule.draw(self.seed, slot, in_turn=slot < EXTRA_SLOTS)
        if task in self.orders:
            return task, self._item(task, slot, attempt), slot, level
        return task, item_seed(self.split, self.seed, slot, attempt), slot, level

    def _item(self, task: str, slot: int, attempt: int) -> int:
        """The number of a slot's problem, of a task with a limited number of them. In place of one that fails comes one of another
        order, which may be a second time in the epoch."""
        order = self.orders[task]
        if attempt:
            return order.item(slot, f"in place {attempt}")
        if slot >= EXTRA_SLOTS:
            return order.item(slot - EXTRA_SLOTS, "extra")
        # A curriculum changes the weights and forgets them, so there all slots count.
        counts_all = self.schedule is not None or len(self.mixture.tasks) == 1
        return order.item(slot if counts_all else self._ordinals[slot])


def item_seed(split: Split, seed: int, slot: int, attempt: int) -> int:
    """The item seed of the `attempt`-th candidate of slot `slot` in stream `seed`."""
    label, first, size = _RANGES[split]
    start = int.from_bytes(hashlib.blake2b(f"{label}:{seed}".encode(), digest_size=8).digest(), "big")
    return first + (start + slot + attempt * STRIDE) % size


def eval_problems(
    mixture: EnvironmentMixture, seed: int, per_task: int, make: MakeProblem | None = None
) -> tuple[Problem, ...]:
    """`per_task` problems of each task with different questions, the same for the same arguments.

    For a task with levels they are spread evenly over the levels, from easy to hard. A task or level with too few different
    questions gives as many as are found in ATTEMPTS tries per problem.

    Raises:
        UserError: the first problems of a task or level all fail.
    """
    problems: list[Problem] = []
    for task in mixture.tasks:
        questions: set[str] = set()
        slots = iter(range(per_task * ATTEMPTS))
        for level, number in _spread(per_task, len(mixture.levels_of.get(task, ()))):
            goal, patience = len(questions) + number, float(ATTEMPTS)
            for slot in islice(slots, number * ATTEMPTS):
                item = first_items(mixture, task, "eval", seed, slot)
                if item is None:
                    break
                try:
                    problem = (make or mixture.problem)(task, item, len(questions), level)
                except GenerationFailed as error:
                    patience -= ATTEMPTS / 2 if error.reason == "too_slow" else 1
                    if patience <= 0:
                        raise UserError(f"datasets.{task}: its first problems all fail: {error.detail}") from error
                    continue  # the next seed takes its place
                patience = math.inf
                if problem.question not in questions:
                    questions.add(problem.question)
                    problems.append(problem)
                if len(questions) == goal:
                    break
    return tuple(problems)


def first_items(mixture: EnvironmentMixture, task: str, split: Split, seed: int, slot: int) -> int | None:
    """The item seed of a slot of the evaluation or of the examples; of a task with a limited number of problems the number of one,
    which is not the other's as long as there are enough. None after the last one."""
    environment = mixture.tasks[task]
    if environment.size is None:
        return item_seed(split, seed, slot, 0)
    own, size = environment.eval_items, environment.size
    if own is not None:
        size = len(own) if split == "eval" else size - len(own)
    if slot >= size:
        return None
    number = Permutation(size, f"{task}:{seed}")[slot if split == "eval" else -1 - slot]
    if own is None:
        return number
    return own[number] if split == "eval" else number + len(own) * (number >= own.start)


def _spread(problems: int, levels: int) -> list[tuple[int | None, int]]:
    """The number of problems of each level, or of level None for a task without levels."""
    if not levels:
        return [(None, problems)]
    counts = Counter(number * levels // problems for number in range(problems))
    return [(level, counts[level]) for level in sorted(counts)]


def held_out_hashes(problems: Sequence[Problem]) -> frozenset[bytes]:
    """The hashes by which `PromptStream` recognises held-out problems."""
    return frozenset(question_hash(p.question) for p in problems)
