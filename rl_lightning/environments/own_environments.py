"""Try the user's own environments before training, because a fault in one would look like a policy that does not learn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from rl_lightning.environments.environment import Environment, GenerationFailed
from rl_lightning.environments.mixture import EnvironmentMixture
from rl_lightning.environments.problem_workers import ProblemWorkers
from rl_lightning.environments.questions import QuestionFile
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask, task_names
from rl_lightning.environments.stream import MakeProblem, first_items
from rl_lightning.types import Problem, UserError

log = logging.getLogger(__name__)

_TRIED = 8
"""Problems of each environment that are tried."""


def try_own(mixture: EnvironmentMixture, problems: Sequence[Problem], seed: int, make: MakeProblem) -> None:
    """Try what an environment must do: the same problem for the same seed, and a verifier that accepts its own expected answer.

    Args:
        mixture: the environments; those of reasoning-gym and of files are known to do it, or have been tried.
        problems: of the evaluation.
        seed: of the evaluation.
        make: generates a problem; where workers do, they also verify.

    Raises:
        UserError: an environment returns two problems for one seed, or accepts none of its expected answers.
    """
    verify_all = make.verify_all if isinstance(make, ProblemWorkers) else mixture.verify_all
    for task, environment in mixture.tasks.items():
        if not _ships(environment):
            _refuse_changing(task, mixture, seed, make)
            _refuse_unpaid(task, mixture, [p for p in problems if p.task == task][:_TRIED], verify_all)


def _ships(environment: Environment) -> bool:
    """Whether nothing of it is the user's: of a file the rows have been tried when they were read."""
    if isinstance(environment, QuestionFile):
        own = type(environment)
        return own.problem is QuestionFile.problem and own.verify is QuestionFile.verify
    return isinstance(environment, ReasoningGymTask) and environment.name in task_names()


def _refuse_changing(task: str, mixture: EnvironmentMixture, seed: int, make: MakeProblem) -> None:
    for slot in range(_TRIED):
        item = first_items(mixture, task, "eval", seed, slot)
        if item is None:
            return
        try:
            first, second = (make(task, item, 0, None) for _ in range(2))
        except GenerationFailed:
            continue
        _refuse_different(task, item, first, second)


def _refuse_different(task: str, item: int, first: Problem, second: Problem) -> None:
    if (first.question, first.expected) != (second.question, second.expected):
        raise UserError(
            f"datasets.{task}: problem({item}) gave {first.question[:60]!r} and then {second.question[:60]!r}: it must be a pure "
            "function of its seed, for example by random.Random(seed)"
        )


def _refuse_unpaid(
    task: str,
    mixture: EnvironmentMixture,
    problems: Sequence[Problem],
    verify_all: Callable[[Sequence[tuple[Problem, str]]], list[float | str]],
) -> None:
    answered = [(p, p.expected) for p in problems if p.expected and mixture.refuse(p, p.expected) is None]
    outcomes = verify_all(answered) if answered else []
    wrong = [(p, outcome) for (p, _), outcome in zip(answered, outcomes, strict=True) if outcome != 1]
    if not wrong:
        return
    problem, outcome = wrong[0]
    line = (
        f"datasets.{task}: its verifier gives {outcome} to the expected answer {str(problem.expected)[:60]!r} of "
        f"{problem.question[:60]!r}, and to {len(wrong)} of {len(answered)} tried"
    )
    if len(wrong) == len(answered):
        raise UserError(f"{line}; nothing could be learned from it")
    log.warning(line)
