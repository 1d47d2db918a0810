"""The policy: a base model in 4 bits, LoRA adapters in float32, log-probs without full logits, adapters on disk."""

from rl_lightning.policy.loading import PolicyConfig
from rl_lightning.policy.microbatch import MicroBatch, cut
from rl_lightning.policy.policy import Policy
from rl_lightning.policy.schedule import Schedule, learning_rate_share

__all__ = ["MicroBatch", "Policy", "PolicyConfig", "Schedule", "cut", "learning_rate_share"]
