"""GSPO's surrogate: the clipped ratio of each completion."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rl_lightning.objective.loss_inputs import LossInputs
from rl_lightning.objective.surrogates.clip import Clip
from rl_lightning.objective.surrogates.surrogate import SurrogateTerms


@dataclass
class GSPO(Clip):
    """Clips the geometric mean of a completion's token ratios, so that a completion is clipped as a whole (arXiv 2507.18071,
    which uses epsilon 3e-4 and epsilon_high 4e-4)."""

    couples_tokens = True

    def __call__(self, inputs: LossInputs) -> SurrogateTerms:
        """The surrogate of each token; see `Surrogate`."""
        return self.of_ratio(torch.exp(inputs.row_means(inputs.logps - inputs.old_logps)), inputs.advantages)
