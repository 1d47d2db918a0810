"""The base class of a task: problems by number, a verifier for their answers, and optional difficulty levels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from rl_lightning.environments.question_hash import QuestionTable
from rl_lightning.types import Problem, UserError

Config = dict[str, Any]
"""An environment's settings by name."""


class GenerationFailed(Exception):
    """A problem could not be generated.

    Attributes:
        reason: name in the metrics: "raised", "too_slow", or "wrong_answer" where the generator's own answer is wrong.
        detail: description for messages.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Environment(ABC):
    """A task. Subclass it, implement `problem` and `verify`, and pass it as `TaskSpec(environment=…)`; the rest has defaults.

    An environment is copied into worker processes, so it must be picklable. It needs many different questions: the evaluation
    holds out `data.eval_num_samples` of them, which are never trained on.

    Attributes:
        config: its settings, to be set in the constructor: they are saved with the run, and a resumed run with others is refused. A
            difficulty level changes some of them.
        size: the number of its problems if that is limited; then `problem` takes their number in place of a seed. The evaluation
            takes its problems first, and training has each of the others once in an epoch.
        eval_items: with `size`, the numbers of the problems that are for the evaluation alone, without gaps; None: it takes them
            from all.
    """

    config: Config = {}  # noqa: RUF012, it is never modified
    size: int | None = None
    eval_items: range | None = None

    @abstractmethod
    def problem(self, seed: int) -> Problem:
        """The problem of a seed. It must be a pure function of the seed; the mixture fills in task, index and level.

        Seeds come consecutively, and training and evaluation have separate ranges: to draw from a list of questions, choose by
        `random.Random(seed)` instead of taking them in their order.

        Args:
            seed: in [0, 2^32), or below `size` if there is one.

        Raises:
            GenerationFailed: there is no problem for this seed; another seed takes its place.
        """
        ...

    @abstractmethod
    def verify(self, problem: Problem, answer: str) -> float:
        """Score an answer, in [0, 1]; 1 is fully right, values outside are clamped, and NaN is 0.

        Runs in a sandboxed worker: `model.score_seconds` long at most, without network, new processes, files to write, environment
        variables or the working directory (docs/scoring.md). It may raise any exception: then the answer scores 0.

        Args:
            problem: a problem that `problem` returned.
            answer: the completion's answer as written, or without its dress, such as `5` for `**5**` (docs/scoring.md).
        """
        ...

    def refuse(self, problem: Problem, answer: str) -> str | None:
        """Why no right answer can look like this one, as a name in snake_case, or None. Runs in the trainer's process, so it must
        take time linear in the answer's length, raise no exception and evaluate no text."""
        return None

    def explain(self, problem: Problem, answer: str) -> str:
        """One line, for people, on how the answer was read and why `verify` gives it its score; empty where there is nothing to
        say. Runs in a sandboxed worker and may raise, as `verify`; no score depends on it.

        Args:
            problem: a problem that `problem` returned.
            answer: what `verify` was given.
        """
        return ""

    def start(self) -> None:  # noqa: B027
        """Called once in each worker process, before that gives up the right to start other processes; does nothing by default."""

    def table(self) -> QuestionTable:
        """With `size`, what must be known of all questions at once; override it where making all problems takes long. A problem
        that fails is never used."""
        return QuestionTable.of(_question(self, number) for number in range(self.size or 0))

    def thinking(self, problem: Problem) -> str | None:
        """The working that leads to the problem's expected answer, for worked examples in prompts; None where none is known."""
        return None

    def levels(self, own: Sequence[Config]) -> list[Config]:
        """The complete settings of each difficulty level, the easiest first; empty for an environment without levels.

        Args:
            own: the user's levels, each with the settings that it changes; empty for the environment's own levels.
        """
        return [{**self.config, **level} for level in own]

    def at_level(self, config: Mapping[str, Any]) -> Environment:
        """The same environment with the settings of one of its `levels`.

        Raises:
            UserError: the environment refuses these settings.
        """
        raise UserError(f"{type(self).__name__} has no levels: it does not implement at_level")

    def check_settings(self, settings: Mapping[str, Any], where: str) -> None:
        """Raise an error for settings that the environment does not have: by default, those that `config` lacks.

        Args:
            settings: the settings to check.
            where: their place in a config, such as "datasets.chain_sum.levels[0]".

        Raises:
            UserError: names the unknown setting, and the settings that exist.
        """
        for key in settings:
            if key not in self.config:
                raise UserError(f"{where}.{key}: no such setting; allowed: {', '.join(self.config) or 'none'}")

    def describe(self) -> str:
        """A description, for `python -m rl_lightning tasks NAME`."""
        return type(self).__doc__ or type(self).__name__


def _question(environment: Environment, number: int) -> str | None:
    try:
        return environment.problem(number).question
    except Exception:  # a user's own may raise any; few problems, or none, are then said where they are asked for
        return None
