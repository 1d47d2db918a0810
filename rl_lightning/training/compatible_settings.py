"""Refuse settings of different sections that ignore or contradict each other."""

from __future__ import annotations

from rl_lightning.objective import Objective
from rl_lightning.policy import PolicyConfig
from rl_lightning.rollout import Sampling
from rl_lightning.types import UserError, require


def refuse_incompatible(policy: PolicyConfig, sampling: Sampling, objective: Objective) -> None:
    """Refuse settings that have no effect, or no meaning, together.

    Raises:
        UserError: there are such settings.
    """
    buffer, limit = objective.overlong_buffer, sampling.max_new_tokens
    require("model.objective.overlong_buffer", buffer, buffer < limit, f"below max_new_tokens, which is {limit}")
    if policy.reference == "adapter" and not objective.beta:
        raise UserError(
            "model.policy.reference: adapter matters only with a KL term; set model.objective.beta above 0, or use base"
        )
    if sampling.max_resample > 1 and objective.baseline == "batch":
        raise UserError(
            "model.sampling.max_resample: with objective.baseline batch every group has advantages; set it to 1"
        )
