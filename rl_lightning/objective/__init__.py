"""GRPO's mathematics as pure functions of tensors: advantages, token weights, surrogates, KL, loss.

May import only torch and `types`. Main exports: `Objective`, the settings; `Objective.advantages` and `token_weights`, which
are computed once for a whole step; and `policy_loss`, the loss of a micro-batch. A new surrogate is a subclass of `Surrogate`.
"""

from rl_lightning.objective.advantages import (
    AdvantageScale,
    decoupled_advantages,
    group_advantages,
    overlong_penalty,
)
from rl_lightning.objective.config import Objective
from rl_lightning.objective.entropy import high_entropy_mask
from rl_lightning.objective.loss import policy_loss
from rl_lightning.objective.loss_inputs import LossInputs
from rl_lightning.objective.surrogates import CISPO, GSPO, SAPO, Clip, Surrogate, SurrogateTerms
from rl_lightning.objective.weights import LossType, token_weights

__all__ = [
    "CISPO",
    "GSPO",
    "SAPO",
    "AdvantageScale",
    "Clip",
    "LossInputs",
    "LossType",
    "Objective",
    "Surrogate",
    "SurrogateTerms",
    "decoupled_advantages",
    "group_advantages",
    "high_entropy_mask",
    "overlong_penalty",
    "policy_loss",
    "token_weights",
]
