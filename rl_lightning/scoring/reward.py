"""What a completion earns. Subclass `Reward` for your own: `--model.reward my_package.MyReward`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from rl_lightning.types import Problem, Score


class Reward(ABC):
    """A reward function. One of several parts may give these and their weights as well."""

    @abstractmethod
    def __call__(self, problem: Problem, completion: str, score: Score) -> float:
        """The reward of one completion: any finite number; differences are what matters.

        Args:
            problem: what was asked.
            completion: the whole text, tags included.
            score: what the task's scorer says of its answer.
        """

    def parts(self, problem: Problem, completion: str, score: Score) -> Sequence[float]:
        """The same in parts, as many as there are weights, not weighed yet: what is asked where
        `objective.reward_aggregation` scales each by itself."""
        return (self(problem, completion, score),)

    @property
    def weights(self) -> Sequence[float]:
        """What each part counts in the sum."""
        return (1.0,)


class WeightedReward(Reward):
    """A weighted sum of what the scorer says.

    Args:
        exact: weight of a fully right answer (0 or 1).
        partial: weight of the scorer's own value (0 to 1).
        format: weight of a well-formed completion, one think section and one answer (0 or 1).
    """

    def __init__(self, exact: float = 1.0, partial: float = 0.0, format: float = 0.1) -> None:
        self.exact, self.partial, self.format = exact, partial, format

    def __call__(self, problem: Problem, completion: str, score: Score) -> float:
        return self.exact * score.exact + self.partial * score.partial + self.format * score.well_formed

    def parts(self, problem: Problem, completion: str, score: Score) -> Sequence[float]:
        return score.exact, score.partial, float(score.well_formed)

    @property
    def weights(self) -> Sequence[float]:
        return self.exact, self.partial, self.format
