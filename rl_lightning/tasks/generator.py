"""One reasoning-gym task as two functions: a problem from a seed, and a score from an answer.

reasoning-gym draws item i of a dataset from Random(seed + i), so neighbouring seeds share nearly all their items. Here an
item has one number, its item seed, and the ranges of item seeds of training, evaluation and the tiny policy's own schooling
do not meet (see `stream`).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import reasoning_gym
from reasoning_gym.factory import DATASETS

from rl_lightning.types import Problem, UserError

ITEM_SEEDS = 2**32
"""numpy, which pool_matrix seeds, takes no larger seed."""

_DRAWN_AT_CREATION = frozenset({"acre", "gsm_symbolic", "list_functions"})
"""Tasks that draw from their seed when the dataset is made: they need a new dataset an item."""

_GLOBALLY_RANDOM = frozenset({"list_functions", "pool_matrix"})
"""Tasks that draw from Python's global generator, or seed numpy's."""

_HASH_ORDERED = frozenset(
    {"isomorphic_strings", "knight_swap", "list_functions", "polynomial_multiplication", "ransom_note", "word_ladder"}
)
"""Tasks whose problems follow the order of a set of strings, which Python shuffles in every process."""

_OWNED_KEYS = frozenset({"seed", "size"})


class Unmade(Exception):
    """A problem that could not be made.

    Attributes:
        reason: for the metrics, "raised" or "too_slow".
        detail: in words.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def task_names() -> list[str]:
    """All 105 task names, sorted; reasoning-gym's `composite` is not one (a mixture is `datasets` here)."""
    return sorted(set(DATASETS) - {"composite"})


def config_defaults(task: str) -> dict[str, Any]:
    """The task's configuration keys with reasoning-gym's defaults, without seed and size, which the stream owns."""
    fields = dataclasses.asdict(DATASETS[task][1]())
    return {key: value for key, value in fields.items() if key not in _OWNED_KEYS}


def category(task: str) -> str:
    """reasoning-gym's category of the task, such as "arithmetic"."""
    return DATASETS[task][0].__module__.split(".")[1]


class Task:
    """A configured reasoning-gym task.

    Args:
        name: one of `task_names()`.
        config: reasoning-gym's configuration for the task, without seed and size.

    Raises:
        UserError: unknown name or key, a value that the task refuses, or a task that Python's hash randomisation would change
            from process to process.
    """

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        _check_name(name)
        check_keys(name, config, f"datasets.{name}.config")
        self.name, self.config = name, dict(config)
        self._dataset = self._create(seed=0)

    def _create(self, seed: int) -> Any:
        try:
            # acre splits its items into 60/20/20 per cent, so ten is the least that has all three kinds.
            return reasoning_gym.create_dataset(self.name, seed=seed, size=10, **self.config)
        except (AssertionError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(f"datasets.{self.name}.config: {self.config} refused by the task: {error}") from error

    def configured(self, config: Mapping[str, Any]) -> Task:
        """The same task by another config, whose keys it has.

        Raises:
            UserError: the task refuses the config.
        """
        other = object.__new__(Task)  # without the checks: in a worker the hash seed holds, but is no longer to be seen
        other.name, other.config = self.name, dict(config)
        other._dataset = other._create(seed=0)
        return other

    def __reduce__(self) -> tuple[type[Task], tuple[str, dict[str, Any]]]:
        return Task, (self.name, self.config)  # some datasets cannot be pickled: a worker makes its own

    def problem(self, item_seed: int, index: int) -> Problem:
        """The problem drawn from `item_seed`, a pure function of it; `index` is only its number in the stream.

        Args:
            item_seed: in [0, ITEM_SEEDS).
            index: kept in the Problem.

        Raises:
            Unmade: the task's generator failed at this seed.
        """
        with _global_random_state(item_seed) if self.name in _GLOBALLY_RANDOM else nullcontext():
            try:
                entry = self._draw(item_seed)
            except Exception as error:
                raise Unmade("raised", f"{type(error).__name__}: {error}") from error
        return Problem(self.name, index, entry["question"], entry)

    def _draw(self, item_seed: int) -> dict[str, Any]:
        if self.name in _DRAWN_AT_CREATION:
            return self._create(item_seed)[item_seed % 10]
        self._dataset.seed = self._dataset.config.seed = item_seed
        return self._dataset[0]

    def score(self, answer: str, entry: dict[str, Any]) -> float:
        """reasoning-gym's own score of `answer`, by this task's configuration; it may raise anything."""
        return self._dataset.score_answer(answer, entry)


def _check_name(name: str) -> None:
    where = f"datasets.{name}"
    if name not in task_names():
        hint = _nearest(name, task_names())
        raise UserError(f"{where}: no such task; {hint}`python -m rl_lightning tasks` lists all {len(task_names())}")
    if name in _HASH_ORDERED and os.environ.get("PYTHONHASHSEED") != "0":
        raise UserError(
            f"{where}: its problems depend on Python's hash seed; set PYTHONHASHSEED=0 before Python starts "
            "(`python -m rl_lightning` does)"
        )


def check_keys(name: str, config: Mapping[str, Any], place: str) -> None:
    """Refuse config keys that the task does not have.

    Args:
        name: the task.
        config: some of its settings.
        place: where they stand, such as "datasets.chain_sum.config".

    Raises:
        UserError: naming the key, and those that there are.
    """
    allowed = config_defaults(name)
    for key in config:
        where = f"{place}.{key}"
        if key in _OWNED_KEYS:
            raise UserError(f"{where}: belongs to the stream; --seed_everything chooses the problems")
        if key not in allowed:
            raise UserError(f"{where}: no such key; {_nearest(key, list(allowed))}allowed: {', '.join(allowed)}")


def _nearest(word: str, words: list[str]) -> str:
    near = difflib.get_close_matches(word, words, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}? " if near else ""


@contextmanager
def _global_random_state(seed: int) -> Iterator[None]:
    """Seed the global generators that list_functions and pool_matrix draw from, and put everybody's state back."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
