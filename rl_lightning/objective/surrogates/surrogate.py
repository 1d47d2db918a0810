"""The interface of a surrogate: from a micro-batch's log-probs and advantages to the values that the update maximizes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rl_lightning.objective.loss_inputs import LossInputs


@dataclass(frozen=True)
class SurrogateTerms:
    """The surrogate of M completion tokens.

    Attributes:
        values: (M,) the values that the update maximizes, with gradient.
        clipped_low: (M,) bool, tokens whose ratio was clipped below, so that they have no gradient; counted in the metrics.
        clipped_high: (M,) bool, tokens whose ratio was clipped above; counted in the metrics.
    """

    values: Tensor
    clipped_low: Tensor
    clipped_high: Tensor

    @classmethod
    def unclipped(cls, values: Tensor) -> SurrogateTerms:
        """The terms of a surrogate that clips no ratio."""
        never = torch.zeros_like(values, dtype=torch.bool)
        return cls(values, never, never)


class Surrogate(ABC):
    """A surrogate objective with its own settings. A subclass is a dataclass whose fields are its settings.

    Attributes:
        couples_tokens: whether a token's gradient depends on the other tokens of its completion. If so, training on a selection
            of tokens (`objective.top_entropy`) is refused.
        trains_zero_advantage: whether a completion whose advantage is zero has a gradient. If not, such completions are not
            forwarded, unless KL or entropy give them one.
    """

    couples_tokens: ClassVar[bool] = False
    trains_zero_advantage: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, inputs: LossInputs) -> SurrogateTerms:
        """The surrogate of a micro-batch's tokens. Completions are whole, so that a mean over one can be taken;
        groups may be divided among micro-batches. It keeps no state, because a step that ran out of memory is repeated."""
