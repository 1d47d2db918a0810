"""What a token's ratio and advantage are worth: what the update raises. At the first update of a rollout, where every ratio is 1,
all of them have the same gradient, advantage x d logp (sapo's too: its slope is 1 there), but for gspo's, which shares it out
over the completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from rl_lightning.objective.config import Objective
from rl_lightning.objective.tokens import Tokens

Surrogate = Callable[[Tokens, Objective], tuple[Tensor, Tensor, Tensor]]
"""Tokens to their (M,) surrogate, to be raised, and (M,) bool twice: whose ratio was cut off below, and above."""


def clip(tokens: Tokens, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """PPO's (arXiv 1707.06347) by token: min(ratio x A, clip(ratio) x A), with a higher upper end ("clip higher", arXiv
    2503.14476) and, where `delta` is set, the ratio of a bad token at most that ("two-sided clip", arXiv 2505.07291)."""
    return _clipped(torch.exp(tokens.logps - tokens.old_logps), tokens.advantages, objective)


def gspo(tokens: Tokens, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """The same by completion (arXiv 2507.18071): the ratio is the geometric mean of its tokens', so it is clipped as a whole."""
    return _clipped(torch.exp(tokens.row_means(tokens.logps - tokens.old_logps)), tokens.advantages, objective)


def cispo(tokens: Tokens, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """The ratio clipped and held as a weight (arXiv 2506.13585): min(ratio, 1 + epsilon_high) x A x logp. No token loses its
    gradient."""
    ratio = torch.exp(tokens.logps - tokens.old_logps).detach()
    weight = ratio.clamp(max=1 + objective.epsilon_high)
    return weight * tokens.advantages * tokens.logps, torch.zeros_like(ratio, dtype=torch.bool), weight < ratio


def sapo(tokens: Tokens, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    """A soft gate instead of a clip (arXiv 2511.20347): 4 / t x sigmoid(t x (ratio - 1)) x A, with a steeper t for bad tokens."""
    ratio = torch.exp(tokens.logps - tokens.old_logps)
    steepness = torch.where(tokens.advantages > 0, objective.sapo_positive, objective.sapo_negative).to(ratio.dtype)
    gate = torch.sigmoid(steepness * (ratio - 1)) * 4 / steepness
    never = torch.zeros_like(ratio, dtype=torch.bool)
    return gate * tokens.advantages, never, never


def _clipped(ratio: Tensor, advantages: Tensor, objective: Objective) -> tuple[Tensor, Tensor, Tensor]:
    within = ratio.clamp(1 - objective.epsilon, 1 + objective.epsilon_high)
    free = ratio if objective.delta is None else ratio.clamp(max=objective.delta)
    below = (ratio < within) & (advantages < 0)
    above = ((ratio > within) & (advantages > 0)) | ((ratio > free) & (advantages < 0))
    return torch.minimum(free * advantages, within * advantages), below, above


SURROGATES: dict[Literal["clip", "gspo", "cispo", "sapo"], Surrogate] = {
    "clip": clip,
    "gspo": gspo,
    "cispo": cispo,
    "sapo": sapo,
}
