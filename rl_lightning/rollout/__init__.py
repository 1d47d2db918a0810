"""Group sampling: many completions of each prompt, with the log-prob of every token drawn."""

from rl_lightning.rollout.decode import sample_groups
from rl_lightning.rollout.sampling import Sampling

__all__ = ["Sampling", "sample_groups"]
