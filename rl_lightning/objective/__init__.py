"""GRPO's mathematics as pure functions of tensors: advantages, token weights, surrogate loss. Needs torch only."""

from rl_lightning.objective.advantages import (
    AdvantageScale,
    decoupled_advantages,
    group_advantages,
    overlong_penalty,
)
from rl_lightning.objective.certainty import least_sure
from rl_lightning.objective.config import Objective
from rl_lightning.objective.loss import policy_loss
from rl_lightning.objective.tokens import Tokens
from rl_lightning.objective.weights import LossType, token_weights

__all__ = [
    "AdvantageScale",
    "LossType",
    "Objective",
    "Tokens",
    "decoupled_advantages",
    "group_advantages",
    "least_sure",
    "overlong_penalty",
    "policy_loss",
    "token_weights",
]
