"""The objective's settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from rl_lightning.objective.advantages import (
    AdvantageScale,
    Baseline,
    RewardAggregation,
    decoupled_advantages,
    group_advantages,
)
from rl_lightning.objective.divergence import KLEstimator
from rl_lightning.objective.mismatch import SamplerCorrection
from rl_lightning.objective.weights import LossType
from rl_lightning.types import UserError, require


@dataclass
class Objective:
    """What is optimised."""

    loss_type: LossType = "dapo"
    """How tokens are weighed: grpo (mean of completions' means), dr_grpo (by the length limit), dapo and bnpo (mean of tokens)."""

    scale_advantages: AdvantageScale = "group"
    """Divide advantages by the standard deviation of rewards in the group, in the batch, or not at all (none)."""

    baseline: Baseline = "group"
    """What a reward is compared with: the group's mean, the mean of the group's others (leave_one_out, RLOO), or the batch's mean
    (batch, REINFORCE++)."""

    surrogate: Literal["clip", "gspo", "cispo", "sapo"] = "clip"
    """What the update raises: clip (PPO's and GRPO's, by token), gspo (the same by completion), cispo (the clipped ratio as a
    weight), sapo (a soft gate). They differ where num_iterations is above 1."""

    epsilon: float = 0.2
    """The ratio is clipped below at 1 - epsilon; in (0, 1)."""

    epsilon_high: float = 0.28
    """The ratio is clipped above at 1 + epsilon_high; > 0."""

    delta: float | None = None
    """The ratio of a bad token counts at most this much (two-sided clip); above 1 + epsilon_high; null: without limit."""

    sapo_positive: float = 1.0
    """Steepness of sapo's gate for good tokens; > 0."""

    sapo_negative: float = 1.05
    """Steepness of sapo's gate for bad tokens; > 0."""

    sampler_correction: SamplerCorrection = "none"
    """Importance weights where sampler and trainer differ: truncated at sampler_cap, masked beyond it, or none."""

    sampler_cap: float = 2.0
    """The largest importance weight; > 1."""

    beta: float = 0.0
    """Weight of the KL to the base; 0 needs no reference pass."""

    kl_estimator: KLEstimator = "k3"
    """How the KL is estimated from sampled tokens: k1 (unbiased), k2 (with the true gradient), k3 (unbiased, never negative)."""

    kl_unbiased_gradient: bool = False
    """Multiply k1 or k3 by the ratio, so that the gradient is that of the KL (DeepSeek-V3.2, arXiv 2512.02556)."""

    entropy_bonus: float = 0.0
    """Weight of the policy's entropy, which is raised with the surrogate; 0 or more, 0.001 is much."""

    top_entropy: float = 1.0
    """Train on this share of the tokens, those where the policy was least sure (arXiv 2506.01939); in (0, 1], 0.2 in the paper.
    Below 1 it costs a forward pass more."""

    reward_aggregation: RewardAggregation = "sum_then_normalize"
    """Whether the parts of a reward are summed before they are compared (sum_then_normalize), or each is divided by its own
    deviation in the group first, so that none drowns in another (normalize_then_sum, GDPO)."""

    overlong_buffer: int = 0
    """The last so many tokens before max_new_tokens cost reward, along a line up to 1 at the limit (DAPO's penalty); 0: none."""

    num_iterations: int = 1
    """Optimizer steps a rollout; at least 1."""

    mask_truncated_completions: bool = False
    """Leave completions that were cut off at max_new_tokens out of the loss."""

    def __post_init__(self) -> None:
        require("objective.epsilon", self.epsilon, 0 < self.epsilon < 1, "above 0 and below 1")
        require("objective.epsilon_high", self.epsilon_high, self.epsilon_high > 0, "above 0")
        require("objective.beta", self.beta, self.beta >= 0, "0 or more")
        require("objective.num_iterations", self.num_iterations, self.num_iterations >= 1, "at least 1")
        require("objective.entropy_bonus", self.entropy_bonus, self.entropy_bonus >= 0, "0 or more")
        require("objective.overlong_buffer", self.overlong_buffer, self.overlong_buffer >= 0, "0 or more, in tokens")
        require("objective.top_entropy", self.top_entropy, 0 < self.top_entropy <= 1, "above 0 and at most 1")
        for name in ("sapo_positive", "sapo_negative"):
            require(f"objective.{name}", getattr(self, name), getattr(self, name) > 0, "above 0")
        require("objective.sampler_cap", self.sampler_cap, self.sampler_cap > 1, "above 1")
        above = f"above 1 + epsilon_high, which is {1 + self.epsilon_high:g}, or null"
        require("objective.delta", self.delta, self.delta is None or self.delta > 1 + self.epsilon_high, above)
        self._refuse_senseless()

    def advantages(self, parts: Tensor, weights: Tensor) -> Tensor:
        """(B, G) float32 advantages of (B, G, R) parts of rewards that count (R,) weights, both float64."""
        if self.reward_aggregation == "normalize_then_sum":
            return decoupled_advantages(parts, weights)
        return group_advantages(parts @ weights, self.scale_advantages, self.baseline)

    @property
    def all_teach(self) -> bool:
        """Whether a completion without advantage has a gradient too."""
        return self.beta > 0 or self.entropy_bonus > 0

    def _refuse_senseless(self) -> None:
        """Combinations whose parts undo or ignore each other."""
        if self.delta is not None and self.surrogate not in ("clip", "gspo"):
            raise UserError(f"objective.delta: {self.surrogate} does not clip from below, so there is nothing to limit")
        if self.beta > 0 and self.kl_estimator == "k2" and self.kl_unbiased_gradient:
            raise UserError(
                "objective.kl_unbiased_gradient: k2 has the true gradient by itself, and the ratio before it makes it another; "
                "set it to false, or use k1 or k3"
            )
        if self.overlong_buffer and self.reward_aggregation == "normalize_then_sum":
            raise UserError(
                "objective.overlong_buffer: normalize_then_sum would scale the least penalty up to a whole reward's worth; set "
                "one of them back"
            )
        if self.top_entropy < 1 and self.surrogate == "gspo":
            raise UserError(
                "objective.top_entropy: gspo's ratio is the whole completion's, so its gradient reaches every token; set 1"
            )
        if self.reward_aggregation == "normalize_then_sum" and self.scale_advantages != "group":
            raise UserError(
                "objective.reward_aggregation: normalize_then_sum divides each part by its group's deviation; set "
                "scale_advantages to group"
            )
        if self.baseline == "leave_one_out" and self.scale_advantages == "group":
            raise UserError(
                "objective.baseline: leave_one_out divided by the group's deviation is the group baseline times G / (G - 1); "
                "set scale_advantages to none or batch"
            )
        if self.baseline == "batch" and self.scale_advantages == "group":
            raise UserError(
                "objective.baseline: batch compares with all groups, so one group's deviation is no measure; set "
                "scale_advantages to batch (REINFORCE++) or none"
            )
        if self.beta > 0 and self.kl_estimator == "k1" and not self.kl_unbiased_gradient:
            raise UserError(
                "objective.kl_estimator: the gradient of k1 is zero on average, so it pulls nowhere; use k2 or k3, or set "
                "kl_unbiased_gradient"
            )
