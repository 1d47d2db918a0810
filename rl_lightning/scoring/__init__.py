"""From completions to rewards."""

from rl_lightning.scoring.reward import Reward, WeightedReward
from rl_lightning.scoring.scorer import Scorer

__all__ = ["Reward", "Scorer", "WeightedReward"]
