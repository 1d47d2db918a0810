"""Reward functions: a completion's reward from its verifier's score.

Your own is a function (`function_reward`), or a subclass of `Reward` or `BatchReward`: `--model.reward my_package.MyReward`.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

from rl_lightning.types import Problem, Score, require

FormatGrading = Literal["strict", "degrees"]


class Reward(ABC):
    """A reward function. One that is a weighted sum of several components can also return these and their weights.

    `__call__` and `components` may be coroutine functions (`async def`), for a reward that asks a server: those of all completions
    of a rollout then run at the same time.
    """

    @abstractmethod
    def __call__(self, problem: Problem, completion: str, score: Score) -> Any:
        """The reward of one completion: any finite number, of which only differences matter; or None where it does not apply
        to the completion, which then counts as average in its group, neither reinforced nor discouraged.

        Args:
            problem: the problem that the completion answers.
            completion: the whole text, tags included.
            score: the score of its answer by the task's verifier.
        """

    def components(self, problem: Problem, completion: str, score: Score) -> Any:
        """The unweighted components of the reward, as many as there are weights; each may be None. Called in place of `__call__`
        where `objective.reward_aggregation` normalises each component separately."""
        whole = self(problem, completion, score)
        return _alone(whole) if inspect.isawaitable(whole) else (whole,)

    @property
    def weights(self) -> Sequence[float]:
        """The weight of each component in the sum."""
        return (1.0,)


class BatchReward(Reward):
    """A reward function that is called once for all completions of a rollout: for a reward model, or a server that takes many.

    Each rank calls it for its own completions, and dynamic sampling (`sampling.max_resample`) once for each round.
    """

    @abstractmethod
    def of_all(self, problems: Sequence[Problem], completions: Sequence[str], scores: Sequence[Score]) -> Any:
        """The rewards of N completions in their order, each a number or None as of `Reward`; it may be a coroutine function.

        Args:
            problems: the problem that each completion answers.
            completions: the whole texts, tags included; those of a group follow one another.
            scores: the score of each answer by its task's verifier.
        """

    def __call__(self, problem: Problem, completion: str, score: Score) -> Any:
        """The reward of one completion, for a caller that has only one."""
        rewards = self.of_all([problem], [completion], [score])
        return _first(rewards) if inspect.isawaitable(rewards) else rewards[0]


async def _alone(reward: Any) -> tuple[Any]:
    return (await reward,)


async def _first(rewards: Any) -> Any:
    return (await rewards)[0]


class WeightedReward(Reward):
    """A weighted sum of the verifier's score and the completion's format.

    Args:
        exact: weight of a fully right answer, which is 0 or 1.
        partial: weight of the verifier's own score, from 0 to 1.
        format: weight of the completion's format (`data.answer_format`).
        format_grading: strict: the format counts 1 if it is exactly as asked, else 0; degrees: in between where it is half right,
            so that a group without a right answer can have advantages.

    Raises:
        UserError: another grading.
    """

    def __init__(
        self,
        exact: float = 1.0,
        partial: float = 0.0,
        format: float = 0.1,
        format_grading: FormatGrading = "strict",
    ) -> None:
        self.exact, self.partial, self.format, self.format_grading = exact, partial, format, format_grading
        known = format_grading in get_args(FormatGrading)
        require("model.reward.format_grading", format_grading, known, "strict or degrees")

    def __call__(self, problem: Problem, completion: str, score: Score) -> float:
        return self.exact * score.exact + self.partial * score.partial + self.format * self._format(score)

    def components(self, problem: Problem, completion: str, score: Score) -> Sequence[float]:
        return score.exact, score.partial, self._format(score)

    def _format(self, score: Score) -> float:
        return score.format if self.format_grading == "degrees" else float(score.well_formed)

    @property
    def weights(self) -> Sequence[float]:
        return self.exact, self.partial, self.format
