"""Compute a completion's reward from its verifier's score.

Subclass `Reward` for your own reward function: `--model.reward my_package.MyReward`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from rl_lightning.types import Problem, Score, UserError, require

FormatGrading = Literal["strict", "degrees"]


class Reward(ABC):
    """A reward function. One that is a weighted sum of several components can also return these and their weights."""

    @abstractmethod
    def __call__(self, problem: Problem, completion: str, score: Score) -> float:
        """The reward of one completion: any finite number. Only differences between rewards matter.

        Args:
            problem: the problem that the completion answers.
            completion: the whole text, tags included.
            score: the score of its answer by the task's verifier.
        """

    def components(self, problem: Problem, completion: str, score: Score) -> Sequence[float]:
        """The unweighted components of the reward, as many as there are weights. Called in place of `__call__` where
        `objective.reward_aggregation` normalises each component separately."""
        return (self(problem, completion, score),)

    @property
    def weights(self) -> Sequence[float]:
        """The weight of each component in the sum."""
        return (1.0,)


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


def component_weights(reward: Reward, separate: bool) -> Tensor:
    """(R,) float64, the weight of each column of `reward_components`.

    Args:
        reward: the reward function.
        separate: whether the components are kept separate; else the only one is their sum, with weight 1.
    """
    return torch.tensor(list(reward.weights) if separate else [1.0], dtype=torch.float64)


def reward_components(
    reward: Reward, separate: bool, problems: Sequence[Problem], texts: Sequence[str], scores: Sequence[Score]
) -> Tensor:
    """The reward components of N completions.

    Args:
        reward: the reward function.
        separate: whether the components are kept separate; else the only one is their sum.
        problems: the problem of each completion.
        texts: the completions.
        scores: the verifier's score of each completion.

    Returns:
        (N, R) float64, not weighted.

    Raises:
        UserError: the numbers of components and weights differ, or a reward is not a finite number in float32.
    """
    arguments = zip(problems, texts, scores, strict=True)
    rows = [tuple(reward.components(*args)) if separate else (reward(*args),) for args in arguments]
    weights, name = component_weights(reward, separate), type(reward).__name__
    if wrong := {len(row) for row in rows} - {len(weights)}:
        raise UserError(f"model.reward: {name} gave {wrong.pop()} components and has {len(weights)} weights")
    components = torch.tensor(rows, dtype=torch.float64)
    if not torch.cat([components, components @ weights[:, None]], dim=1).float().isfinite().all():
        raise UserError(f"model.reward: {name} gave a reward that is not a finite number")
    return components
