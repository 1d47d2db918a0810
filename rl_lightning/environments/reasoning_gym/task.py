"""reasoning-gym's tasks as environments: a problem from a seed, and a score for an answer.

reasoning-gym generates item i of a dataset from Random(seed + i), so neighbouring seeds share nearly all their items. Here an
item has one number, its item seed, and the ranges of item seeds for training, evaluation and supervised training of the tiny
policy are disjoint (see `stream`).
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import reasoning_gym
from reasoning_gym.composite import DatasetSpec
from reasoning_gym.factory import DATASETS

from rl_lightning.environments.environment import Config, Environment, GenerationFailed
from rl_lightning.environments.reasoning_gym.answer_checks import refuse_answer
from rl_lightning.environments.reasoning_gym.curricula import curriculum_levels
from rl_lightning.environments.reasoning_gym.descriptions import DESCRIPTIONS
from rl_lightning.environments.reasoning_gym.late_import import USERS, import_now
from rl_lightning.environments.reasoning_gym.problem_checks import refuse_problem
from rl_lightning.environments.reasoning_gym.process_state import (
    global_random_state,
    newest_programs,
    running_programs,
)
from rl_lightning.environments.reasoning_gym.thinking import working
from rl_lightning.types import Problem, UserError, first_line, require

ITEM_SEEDS = 2**32
"""Number of item seeds. numpy, which pool_matrix seeds, accepts no larger seeds."""

COMPOSITE = "composite"
"""reasoning-gym's own mixture of tasks, by `datasets` in its config."""

_DRAWN_AT_CREATION = frozenset({"acre", "gsm_symbolic", "list_functions"})
"""Tasks that use their seed when the dataset is created, so each item needs a new dataset."""

_GLOBALLY_RANDOM = frozenset({"codeio", "list_functions", "pool_matrix"})
"""Tasks that use Python's or numpy's global random generator, or seed numpy's."""

_RUNS_PROGRAMS = frozenset({"codeio", COMPOSITE})
"""Tasks that run the programs of others, or may have such a part."""

_HASH_ORDERED = frozenset(
    {"isomorphic_strings", "knight_swap", "list_functions", "polynomial_multiplication", "ransom_note", "word_ladder"}
)
"""Tasks whose problems depend on the order of a set of strings, which differs between processes (Python's hash randomisation)."""

_OWNED_KEYS = frozenset({"seed", "size"})
"""Config keys that the stream sets."""

_OF_PART = ("name", "weight", "config")
"""Keys of a part of a composite."""


def task_names() -> list[str]:
    """All 105 task names, sorted, without reasoning-gym's `composite` (here a mixture is made with `datasets`)."""
    return sorted(DESCRIPTIONS)


def config_defaults(task: str) -> dict[str, Any]:
    """The task's configuration keys with reasoning-gym's defaults, without seed and size, which the stream sets."""
    fields = dataclasses.asdict(DATASETS[task][1]())
    return {key: value for key, value in fields.items() if key not in _OWNED_KEYS}


def category(task: str) -> str:
    """reasoning-gym's category of the task, such as "arithmetic"."""
    return DATASETS[task][0].__module__.split(".")[1]


class ReasoningGymTask(Environment):
    """A configured reasoning-gym task.

    Args:
        name: one of `task_names()`, "composite", or a name that `module` registers.
        config: reasoning-gym's configuration for the task, without seed and size.
        module: of your own, imported first; it registers a dataset by `reasoning_gym.factory.register_dataset`.

    Raises:
        UserError: an unknown name or key, a value that the task refuses, a task whose problems would differ between processes
            because of Python's hash randomisation, or a module that cannot be imported.
    """

    def __init__(self, name: str, config: dict[str, Any] = {}, module: str = "") -> None:  # noqa: B006
        self.name, self.config, self._module = name, dict(config), module
        _import(module)
        _check_name(name)
        check_keys(name, config, f"datasets.{name}.config")
        self._drawn_at_creation = bool({name} & (_DRAWN_AT_CREATION | {COMPOSITE}) or module)
        self._dataset = self._create(seed=0)

    def _create(self, seed: int) -> Any:
        try:
            # acre splits its items into 60/20/20 per cent, so ten is the smallest size that has all three kinds.
            dataset = reasoning_gym.create_dataset(self.name, seed=seed, size=10, **_settings(self.name, self.config))
        except (AssertionError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise UserError(
                f"datasets.{self.name}.config: {self.config} refused by the task: {first_line(error)}"
            ) from error
        self._programs = newest_programs()
        return dataset

    def at_level(self, config: Mapping[str, Any]) -> ReasoningGymTask:
        """The same task with another config, whose keys have been checked.

        Raises:
            UserError: the task refuses the config.
        """
        # Without the checks of __init__: a worker has the right hash seed, but not the environment variable that they read.
        other = object.__new__(ReasoningGymTask)
        other.name, other.config, other._module = self.name, dict(config), self._module
        other._drawn_at_creation = self._drawn_at_creation
        other._dataset = other._create(seed=0)
        return other

    def __reduce__(self) -> tuple[type[ReasoningGymTask], tuple[str, dict[str, Any], str]]:
        # Some datasets cannot be pickled, so a worker creates its own.
        return ReasoningGymTask, (self.name, self.config, self._module)

    def start(self) -> None:
        """Import what the task imports late, which a worker may not do once it has given up its rights."""
        if self.name in USERS or self._module:
            import_now()

    def problem(self, seed: int) -> Problem:
        """The problem of a seed, a pure function of it.

        Args:
            seed: in [0, ITEM_SEEDS).

        Raises:
            GenerationFailed: the task's generator failed at this seed, or its answer is wrong or one of several; see
                `refuse_problem`.
        """
        try:
            with self._drawing(seed):
                entry = self._generate(seed)
                wrong = refuse_problem(_metadata(entry).get("source_dataset", self.name), entry)
        except (Exception, SystemExit) as error:
            raise GenerationFailed("raised", f"{type(error).__name__}: {error}") from error
        if wrong is not None:
            raise GenerationFailed("wrong_answer", f"reasoning-gym's answer {str(entry['answer'])[:60]!r}: {wrong}")
        answer = entry.get("answer")
        expected = None if answer is None else str(answer)
        return Problem(entry["question"], expected, payload=entry, difficulty=_difficulty(entry), task=self.name)

    def item(self, seed: int) -> dict[str, Any]:
        """reasoning-gym's item of a seed, whether or not its answer is right; its generator may raise any exception."""
        with self._drawing(seed):
            return self._generate(seed)

    @contextmanager
    def _drawing(self, seed: int) -> Iterator[None]:
        """What belongs to the process, for as long as the item of a seed is drawn."""
        is_random = self.name in _GLOBALLY_RANDOM or self._drawn_at_creation
        with (
            global_random_state(seed) if is_random else nullcontext(),
            running_programs(self._programs) if self.name in _RUNS_PROGRAMS else nullcontext(),
        ):
            yield

    def _generate(self, item_seed: int) -> dict[str, Any]:
        if self._drawn_at_creation:
            return self._create(item_seed)[item_seed % 10 if self.name in _DRAWN_AT_CREATION else 0]
        self._dataset.seed = self._dataset.config.seed = item_seed
        return self._dataset[0]

    def verify(self, problem: Problem, answer: str) -> float:
        """reasoning-gym's own score of `answer`, with this task's configuration; it may raise any exception."""
        return float(self._dataset.score_answer(answer, problem.payload))

    def refuse(self, problem: Problem, answer: str) -> str | None:
        """Why reasoning-gym's verifier must not receive the answer, or None; see `refuse_answer`."""
        return refuse_answer(self._source(problem), answer, problem.payload)

    def thinking(self, problem: Problem) -> str | None:
        """The working of the problem, for the tasks that have one; see `working`."""
        return working(self._source(problem), _metadata(problem.payload))

    def _source(self, problem: Problem) -> str:
        """The task that a problem comes from, which of reasoning-gym's composite is one of several."""
        return _metadata(problem.payload)["source_dataset"] if self.name == COMPOSITE else self.name

    def levels(self, own: Sequence[Config]) -> list[Config]:
        """The user's levels, which override keys of the config. Without any, the levels of reasoning-gym's curriculum, whose keys
        the config overrides."""
        if own:
            return super().levels(own)
        return [{**level, **self.config} for level in curriculum_levels(self.name)]

    def check_settings(self, settings: Mapping[str, Any], where: str) -> None:
        """Raise an error for keys that the task does not have; see `check_keys`."""
        check_keys(self.name, settings, where)

    def describe(self) -> str:
        """The task's name, category and one-line description."""
        if self.name in DESCRIPTIONS:
            return f"{self.name} ({category(self.name)}): {DESCRIPTIONS[self.name]}"
        return f"{self.name}: {' '.join((DATASETS[self.name][0].__doc__ or 'a dataset of your own').split())}"


def _metadata(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an item says about itself, which that of a registered dataset need not."""
    return entry.get("metadata") or {}


def _difficulty(entry: Mapping[str, Any]) -> dict[str, int]:
    """The difficulty features that reasoning-gym names under `difficulty`, with this problem's values if these are whole
    numbers."""
    metadata = _metadata(entry)
    difficulty = metadata.get("difficulty")
    if not isinstance(difficulty, dict):
        return {}
    values = {feature: metadata.get(feature, default) for feature, default in difficulty.items()}
    return {feature: value for feature, value in values.items() if type(value) is int}


def _check_name(name: str) -> None:
    where = f"datasets.{name}"
    if name not in DATASETS:
        hint = _nearest(name, task_names())
        raise UserError(f"{where}: no such task; {hint}`python -m rl_lightning tasks` lists all {len(task_names())}")
    if name in _HASH_ORDERED and os.environ.get("PYTHONHASHSEED") != "0":
        raise UserError(
            f"{where}: its problems depend on Python's hash seed; set PYTHONHASHSEED=0 before Python starts "
            "(`python -m rl_lightning` does)"
        )


def _import(module: str) -> None:
    try:
        if module:
            importlib.import_module(module)
    except Exception as error:  # of the user's own code any
        raise UserError(
            f"module: {module!r} cannot be imported: {type(error).__name__}: {first_line(error)}"
        ) from error


def _settings(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as reasoning-gym takes it."""
    if name != COMPOSITE:
        return dict(config)
    return {"datasets": [DatasetSpec(**{"weight": 1.0, "config": {}, **part}) for part in config.get("datasets", [])]}


def check_keys(name: str, config: Mapping[str, Any], place: str) -> None:
    """Raise an error for config keys that the task does not have.

    Args:
        name: the task.
        config: the settings to check.
        place: their place in a config, such as "datasets.chain_sum.config".

    Raises:
        UserError: names the unknown key, and the keys that exist.
    """
    allowed = config_defaults(name)
    for key in config:
        where = f"{place}.{key}"
        if key in _OWNED_KEYS:
            raise UserError(f"{where}: belongs to the stream; --seed_everything selects the problems")
        if key not in allowed:
            raise UserError(f"{where}: no such key; {_nearest(key, list(allowed))}allowed: {', '.join(allowed)}")
    if name == COMPOSITE and "datasets" in config:
        _check_parts(config["datasets"], f"{place}.datasets")


def _check_parts(parts: Any, place: str) -> None:
    """Raise an error for parts of a composite that are none, or have settings that their task does not have."""
    if not isinstance(parts, (list, tuple)):
        raise UserError(f"{place}: {parts!r} is not allowed; it must be a list, such as [{{name: gcd, weight: 2}}]")
    for number, part in enumerate(parts):
        where = f"{place}[{number}]"
        if not isinstance(part, dict) or not isinstance(part.get("name"), str) or part["name"] == COMPOSITE:
            raise UserError(f"{where}: {part!r} is not allowed; it must be a task by its name, such as {{name: gcd}}")
        if unknown := next((key for key in part if key not in _OF_PART), None):
            raise UserError(f"{where}.{unknown}: no such key; allowed: {', '.join(_OF_PART)}")
        weight, config = part.get("weight", 1.0), part.get("config", {})
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        require(f"{where}.weight", weight, is_number and 0 < weight < math.inf, "a number above 0")
        require(f"{where}.config", config, isinstance(config, dict), "settings by name")
        _check_name(part["name"])
        check_keys(part["name"], config, f"{where}.config")


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}? " if near else ""
