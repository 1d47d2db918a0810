"""The objective's settings, which combinations of them are refused, and the advantages that they define."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from rl_lightning.objective.advantages import (
    AdvantageScale,
    Baseline,
    RewardAggregation,
    decoupled_advantages,
    group_advantages,
)
from rl_lightning.objective.importance import ImportanceCorrection
from rl_lightning.objective.kl import KLEstimator
from rl_lightning.objective.surrogates import Clip, Surrogate
from rl_lightning.objective.weights import LossType
from rl_lightning.types import UserError, require


@dataclass
class Objective:
    """What is optimized: advantages, token weights, surrogate, KL and entropy."""

    loss_type: LossType = "dapo"
    """How tokens are weighted: grpo (the mean over completions of their tokens' mean), dr_grpo (divided by the length limit),
    dapo and bnpo (the mean over all tokens of the step)."""

    scale_advantages: AdvantageScale = "group"
    """Divide advantages by the standard deviation of the rewards in the group (group), of those in the batch (batch), or by
    nothing (none)."""

    baseline: Baseline = "group"
    """What is subtracted from a reward: the mean of its group (group), of the other rewards in its group (leave_one_out, RLOO),
    or of the batch (batch, REINFORCE++)."""

    surrogate: Surrogate = field(default_factory=Clip)
    """The surrogate that is maximized: Clip (PPO's and GRPO's clipped ratio of each token), GSPO (the clipped ratio of each
    completion), CISPO (the clipped ratio as a weight), SAPO (a soft gate), or your own class by its path; each has its own
    settings. Clip, CISPO and SAPO differ only where num_iterations is above 1."""

    importance_correction: ImportanceCorrection = "none"
    """Importance weights for the difference between the sampler's and the trainer's log-probs: truncated at importance_cap
    (truncated), set to 0 outside [1 / importance_cap, importance_cap] (masked), or not used (none)."""

    importance_cap: float = 2.0
    """The largest importance weight; above 1. Not used with importance_correction none."""

    beta: float = 0.0
    """Weight of the KL divergence from the reference model (policy.reference); 0 or more. 0 saves the reference forward pass."""

    kl_estimator: KLEstimator = "k3"
    """Estimator of the KL from the sampled tokens: k1 (unbiased), k2 (its gradient is that of the KL), k3 (unbiased, never
    negative)."""

    kl_unbiased_gradient: bool = False
    """Multiply k1 or k3 by the probability ratio, so that its gradient is that of the KL (DeepSeek-V3.2, arXiv 2512.02556)."""

    entropy_bonus: float = 0.0
    """Weight of the policy's entropy, which is maximized with the surrogate; 0 or more. 0.001 is already large."""

    top_entropy: float = 1.0
    """Train only on this share of a rollout's tokens, those of the highest entropy (arXiv 2506.01939); in (0, 1], 0.2 in the
    paper. Below 1 it costs one more forward pass."""

    reward_aggregation: RewardAggregation = "sum_then_normalize"
    """Whether a reward's components are summed before advantages are computed (sum_then_normalize), or each component is first
    normalised by its own mean and standard deviation in the group, so that none dominates (normalize_then_sum, GDPO)."""

    overlong_buffer: int = 0
    """Length penalty (DAPO): over this many tokens before max_new_tokens it grows linearly from 0 to 1, and is subtracted from
    the reward; 0 for none."""

    num_iterations: int = 1
    """Optimizer steps on each rollout; at least 1."""

    mask_truncated_completions: bool = False
    """Leave completions that were truncated at max_new_tokens out of the loss."""

    def __post_init__(self) -> None:
        require("objective.beta", self.beta, self.beta >= 0, "0 or more")
        require("objective.num_iterations", self.num_iterations, self.num_iterations >= 1, "at least 1")
        require("objective.entropy_bonus", self.entropy_bonus, self.entropy_bonus >= 0, "0 or more")
        require("objective.overlong_buffer", self.overlong_buffer, self.overlong_buffer >= 0, "0 or more, in tokens")
        require("objective.top_entropy", self.top_entropy, 0 < self.top_entropy <= 1, "above 0 and at most 1")
        require("objective.importance_cap", self.importance_cap, self.importance_cap > 1, "above 1")
        self._refuse_incompatible()

    def advantages(self, components: Tensor, weights: Tensor) -> Tensor:
        """(B, G) float32 advantages from (B, G, R) reward components and their (R,) weights, both float64."""
        if self.normalizes_components:
            return decoupled_advantages(components, weights)
        return group_advantages(components @ weights, self.scale_advantages, self.baseline)

    @property
    def normalizes_components(self) -> bool:
        """Whether the reward's components are needed one by one, and not only their sum."""
        return self.reward_aggregation == "normalize_then_sum"

    @property
    def trains_zero_advantage(self) -> bool:
        """Whether a completion with zero advantage has a gradient: from the KL or from the entropy bonus."""
        return self.beta > 0 or self.entropy_bonus > 0 or self.surrogate.trains_zero_advantage

    def _refuse_incompatible(self) -> None:
        """Refuse settings that cancel or ignore each other."""
        if self.beta > 0 and self.kl_estimator == "k2" and self.kl_unbiased_gradient:
            raise UserError(
                "objective.kl_unbiased_gradient: k2 has the true gradient by itself, and the ratio would change it; set it to "
                "false, or use k1 or k3"
            )
        if self.overlong_buffer and self.reward_aggregation == "normalize_then_sum":
            raise UserError(
                "objective.overlong_buffer: normalize_then_sum would scale the smallest penalty up to a whole reward's worth; use "
                "only one of the two"
            )
        if self.top_entropy < 1 and self.surrogate.couples_tokens:
            raise UserError(
                f"objective.top_entropy: the ratio of {type(self.surrogate).__name__} is the whole completion's, so its gradient "
                "reaches every token; set 1"
            )
        if self.reward_aggregation == "normalize_then_sum" and self.scale_advantages != "group":
            raise UserError(
                "objective.reward_aggregation: normalize_then_sum divides each component by its group's deviation; set "
                "scale_advantages to group"
            )
        if self.baseline == "leave_one_out" and self.scale_advantages == "group":
            raise UserError(
                "objective.baseline: leave_one_out divided by the group's deviation is the group baseline times G / (G - 1); "
                "set scale_advantages to none or batch"
            )
        if self.baseline == "batch" and self.scale_advantages == "group":
            raise UserError(
                "objective.baseline: batch is the mean of all groups, so the deviation of one group is no measure; set "
                "scale_advantages to batch (REINFORCE++) or none"
            )
        if self.beta > 0 and self.kl_estimator == "k1" and not self.kl_unbiased_gradient:
            raise UserError(
                "objective.kl_estimator: the gradient of k1 is zero on average, so it has no effect; use k2 or k3, or set "
                "kl_unbiased_gradient"
            )
