"""A weighted mixture of environments, each with its difficulty levels."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeGuard

from rl_lightning.curriculum.schedule import draw_task
from rl_lightning.environments.environment import Config, Environment, GenerationFailed
from rl_lightning.environments.plain_answers import plain_answers
from rl_lightning.environments.questions import QuestionFile, Questions
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask
from rl_lightning.environments.setting_names import refuse_null
from rl_lightning.sandbox.users_code import said_by
from rl_lightning.types import Problem, UserError, first_line

_EXPLANATION_CHARACTERS = 500
"""A longer explanation is cut: it is one line for a person."""


@dataclass
class TaskSpec(Questions):
    """One task of the mixture: a reasoning-gym task by its name; or your own: questions from a `path`, or an `environment`."""

    weight: float = 1.0
    """Share of the problems, relative to the other tasks' weights; above 0."""

    config: dict[str, Any] = field(default_factory=dict)
    """reasoning-gym's configuration of the task; `python -m rl_lightning tasks NAME` prints the keys and their defaults."""

    levels: list[dict[str, Any]] = field(default_factory=list)
    """With `data.curriculum`: the task's difficulty levels, the easiest first, each with the config keys that it changes in
    `config`.
    Empty: those of reasoning-gym's curriculum, which `python -m rl_lightning tasks NAME --levels` prints."""

    environment: Environment | None = None
    """Your own environment, instead of the reasoning-gym task of this name; it has its own settings. In a config its class_path and
    init_args may also stand beside `weight` and `levels`."""


class EnvironmentMixture:
    """Several environments with weights.

    Args:
        datasets: task name to its TaskSpec.

    Attributes:
        tasks: task name to its environment.
        weights: task name to its weight.
        own_levels: task name to the levels in the user's config, usable or not.
        levels_of: task name to the complete settings of its usable levels, the easiest first; see `set_levels`.

    Raises:
        UserError: no task, a weight that is not positive, a level with a setting that the task does not have, a config for the
            user's own environment, or settings that an environment refuses.
    """

    def __init__(self, datasets: Mapping[str, TaskSpec]) -> None:
        if not datasets:
            raise UserError("datasets: empty; name at least one task, e.g. {chain_sum: {weight: 1}}")
        self.tasks = {name: _environment(name, spec) for name, spec in datasets.items()}
        self.weights = {name: float(spec.weight) for name, spec in datasets.items()}  # 2 and 2.0 are one setting
        for name, weight in self.weights.items():
            if not 0 < weight < math.inf:
                raise UserError(
                    f"datasets.{name}.weight: {weight} is not positive and finite; leave the task out instead"
                )
        self.own_levels = {name: list(spec.levels) for name, spec in datasets.items()}
        for name, levels in self.own_levels.items():
            for number, level in enumerate(levels):
                self.tasks[name].check_settings(level, f"datasets.{name}.levels[{number}]")
        self.levels_of: dict[str, tuple[Config, ...]] = {}
        self._at_level: dict[tuple[str, int], Environment] = {}

    def set_levels(self, levels_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Set the levels of the tasks: task name to the complete settings of its levels, the easiest first."""
        self.levels_of = {name: tuple(dict(level) for level in levels) for name, levels in levels_of.items() if levels}
        # All are created here: if one were created when its first answer is verified, that would count as the verifier's time.
        self._at_level = {
            (name, number): self.tasks[name].at_level(level)
            for name, levels in self.levels_of.items()
            for number, level in enumerate(levels)
        }

    def at(self, task: str, level: int | None) -> Environment:
        """The task at one of its levels; None for its own config."""
        return self.tasks[task] if level is None else self._at_level[task, level]

    def start(self) -> None:
        """Prepare a worker process for all environments; see `Environment.start`."""
        at_levels = ((name, environment) for (name, _), environment in self._at_level.items())
        for name, environment in (*self.tasks.items(), *at_levels):
            try:
                environment.start()
            except Exception as error:  # the user's own environments may raise any
                raise UserError(f"datasets.{name}: start raised {said_by(error)}") from error

    def draw(self, seed: int, slot: int) -> str:
        """The task of a slot, a pure function of (seed, slot)."""
        return draw_task(self.weights, seed, slot)

    def problem(self, task: str, item_seed: int, index: int, level: int | None = None) -> Problem:
        """The task's problem of an item seed; see `Environment.problem`.

        Args:
            task: the task's name.
            item_seed: the seed, in [0, 2^32).
            index: the number that the problem gets in its stream.
            level: the difficulty level, 0 the easiest; None for the task's own config.

        Raises:
            GenerationFailed: there is no problem for this seed, or the environment raised an exception.
            UserError: what the environment returned is no problem.
        """
        try:
            problem = self.at(task, level).problem(item_seed)
        except (GenerationFailed, UserError):
            raise
        except (Exception, SystemExit) as error:  # the user's own environments may raise any
            raise GenerationFailed("raised", f"{type(error).__name__}: {first_line(error)}") from error
        return replace(_checked(task, item_seed, problem), task=task, index=index, level=level)

    def refuse(self, problem: Problem, answer: str) -> str | None:
        """Why the problem's verifier must see neither this answer nor a plain reading of it, or None; see `Environment.refuse`.

        Raises:
            UserError: the environment raised an exception.
        """
        refuse = self.at(problem.task, problem.level).refuse
        try:
            if (reason := refuse(problem, answer)) is None:
                return None
            reasons = [refuse(problem, plain) for plain in plain_answers(problem, answer)] or [reason]
        except Exception as error:  # the user's own environments may raise any, and this is no worker
            raise UserError(
                f"datasets.{problem.task}: refuse raised {type(error).__name__}: {first_line(error)}"
            ) from error
        return None if None in reasons else reasons[-1]

    def verify_all(self, answered: Sequence[tuple[Problem, str]]) -> list[float | str]:
        """The score of each (problem, answer) pair; where the verifier raises an exception, "raised_" and its name.

        An answer counts as written; where that is not fully right, it counts as the best of its plain readings that the task does
        not refuse (see `plain_answers`), if that is better.
        """
        return [self._verify_readings(problem, answer) for problem, answer in answered]

    def explain(self, problem: Problem, answer: str) -> str:
        """One line on why an answer has its score, of the reading that counts in `verify_all`; empty where there is nothing to say.
        Where the task's explanation raises an exception, that is the line. Called in a sandboxed worker."""
        outcomes = self._outcomes(problem, answer)
        if not outcomes:
            return ""
        # Of equal ones the last, which has the least dress.
        reading, _ = max(reversed(outcomes), key=lambda pair: pair[1] if _is_score(pair[1]) else -math.inf)
        try:
            said = self.at(problem.task, problem.level).explain(problem, reading)
        except BaseException as error:  # as verifiers do on a model's text
            said = f"the explanation raised {type(error).__name__}: {error}"
        return " ".join(str(said).split())[:_EXPLANATION_CHARACTERS]

    def _verify_readings(self, problem: Problem, answer: str) -> float | str:
        if not plain_answers(problem, answer):
            return self._verify(problem, answer)
        outcomes = [outcome for _, outcome in self._outcomes(problem, answer)]
        return max(filter(_is_score, outcomes), default=outcomes[0])

    def _outcomes(self, problem: Problem, answer: str) -> list[tuple[str, float | str]]:
        """Each reading that the task does not refuse, with its outcome, up to the first that is fully right."""
        outcomes: list[tuple[str, float | str]] = []
        for reading in (answer, *plain_answers(problem, answer)):
            if self.at(problem.task, problem.level).refuse(problem, reading) is None:
                outcomes.append((reading, self._verify(problem, reading)))
                if isinstance(outcomes[-1][1], float) and outcomes[-1][1] >= 1:
                    break
        return outcomes

    def _verify(self, problem: Problem, answer: str) -> float | str:
        try:
            return float(self.at(problem.task, problem.level).verify(problem, answer))
        except BaseException as error:  # verifiers raise SystemExit, RecursionError and others on a model's text
            return f"raised_{type(error).__name__}"


def _is_score(outcome: float | str) -> TypeGuard[float]:
    return isinstance(outcome, float) and math.isfinite(outcome)


def _environment(name: str, spec: TaskSpec) -> Environment:
    where = f"datasets.{name}"
    refuse_null(where, TaskSpec, vars(spec))
    if spec.config and (spec.path or spec.environment):
        raise UserError(f"{where}.config: is only for reasoning-gym's tasks; your own has its own settings (init_args)")
    if spec.path and spec.environment:
        raise UserError(f"{where}: path and environment exclude each other")
    if spec.path:
        _refuse_unpicklable(f"{where}.verifier", spec.verifier)
        try:
            return QuestionFile(spec)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
    for each in fields(Questions):
        if getattr(spec, each.name) != getattr(_NO_QUESTIONS, each.name):
            raise UserError(f"{where}.{each.name}: is only for questions from a file; name it by path")
    if spec.environment is None:
        return ReasoningGymTask(name, spec.config)
    _refuse_unpicklable(where, spec.environment)
    return spec.environment


def _refuse_unpicklable(where: str, served: object) -> None:
    try:
        pickle.dumps(served)
    except Exception as error:  # pickle's own, TypeError, AttributeError, and whatever its methods raise
        raise UserError(f"{where}: cannot be copied into worker processes: {first_line(error)}") from error


def _checked(task: str, seed: int, problem: Problem) -> Problem:
    """The problem, which a user's own environment has returned."""
    where = f"datasets.{task}: problem({seed})"
    if not isinstance(problem, Problem):
        raise UserError(f"{where} returned {type(problem).__name__}, not a Problem")
    if not isinstance(problem.question, str) or not problem.question.strip():
        raise UserError(f"{where} has the question {problem.question!r}, not a text")
    if not isinstance(problem.expected, str | None):
        raise UserError(f"{where} has the expected answer {problem.expected!r}, not a text")
    return problem


_NO_QUESTIONS = TaskSpec()
