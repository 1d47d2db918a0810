"""Weighted surrogate, KL and entropy loss of a micro-batch."""

from __future__ import annotations

import torch

from rl_lightning.objective.config import Objective
from rl_lightning.objective.importance import importance_weights
from rl_lightning.objective.kl import kl
from rl_lightning.objective.loss_inputs import LossInputs
from rl_lightning.types import LossOutput


def policy_loss(inputs: LossInputs, objective: Objective) -> LossOutput:
    """Sum over tokens of weight x importance weight x (beta x KL - surrogate - entropy_bonus x entropy).

    Args:
        inputs: the tokens of a micro-batch.
        objective: the surrogate, KL estimator and importance correction to use, with their settings.

    Returns:
        the loss, and metrics that add up over micro-batches: `clipped_low` and `clipped_high` count the tokens whose ratio was
        clipped below and above, `kl` is the sum of the KL estimator over tokens, in nats.
    """
    surrogate = objective.surrogate(inputs)
    per_token = -surrogate.values
    metrics = {"clipped_low": surrogate.clipped_low.sum(), "clipped_high": surrogate.clipped_high.sum()}
    if inputs.ref_logps is not None:
        divergence = kl(inputs.logps, inputs.ref_logps, objective.kl_estimator)
        metrics["kl"] = divergence.detach().sum()
        if objective.kl_unbiased_gradient:
            divergence = divergence * torch.exp(inputs.logps - inputs.old_logps)
        per_token = per_token + objective.beta * divergence
    if inputs.entropy is not None and objective.entropy_bonus:
        per_token = per_token - objective.entropy_bonus * inputs.entropy
    weights = inputs.weights
    if inputs.sampling_logps is not None and objective.importance_correction != "none":
        correction = importance_weights(
            inputs.old_logps, inputs.sampling_logps, objective.importance_correction, objective.importance_cap
        )
        weights = weights * correction
    return LossOutput((weights * per_token).sum(), metrics)
