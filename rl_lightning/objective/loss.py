"""The loss of a micro-batch: surrogate and entropy are raised, the distance to the base is not; weighed, summed over tokens."""

from __future__ import annotations

import torch

from rl_lightning.objective.config import Objective
from rl_lightning.objective.divergence import kl
from rl_lightning.objective.mismatch import sampler_weights
from rl_lightning.objective.surrogates import SURROGATES
from rl_lightning.objective.tokens import Tokens
from rl_lightning.types import LossOutput


def policy_loss(tokens: Tokens, objective: Objective) -> LossOutput:
    """Sum over tokens of weight x sampler weight x (beta x KL - surrogate - entropy_bonus x entropy).

    Args:
        tokens: a micro-batch's.
        objective: which surrogate, estimator and correction.

    Returns:
        the loss, and sums that add up over micro-batches: `clipped_low` and `clipped_high` are counts of tokens whose ratio was
        cut off below and above, `kl` is the sum of the estimator over tokens.
    """
    surrogate, below, above = SURROGATES[objective.surrogate](tokens, objective)
    per_token = -surrogate
    metrics = {"clipped_low": below.sum(), "clipped_high": above.sum()}
    if tokens.ref_logps is not None:
        divergence = kl(tokens.logps, tokens.ref_logps, objective.kl_estimator)
        metrics["kl"] = divergence.detach().sum()
        if objective.kl_unbiased_gradient:
            divergence = divergence * torch.exp(tokens.logps - tokens.old_logps)
        per_token = per_token + objective.beta * divergence
    if tokens.entropy is not None and objective.entropy_bonus:
        per_token = per_token - objective.entropy_bonus * tokens.entropy
    weights = tokens.weights
    if tokens.sampling_logps is not None and objective.sampler_correction != "none":
        correction = sampler_weights(
            tokens.old_logps, tokens.sampling_logps, objective.sampler_correction, objective.sampler_cap
        )
        weights = weights * correction
    return LossOutput((weights * per_token).sum(), metrics)
