"""From completions to rewards: verifiers in sandboxed workers, and the reward functions that use their scores.

May import `sandbox`, `environments` and the layers below. Main exports: `Scorer`; `Reward`, with its default `WeightedReward`;
and `reward_components` and `component_weights`, which apply a reward function to a whole batch.
"""

from rl_lightning.scoring.reward import Reward, WeightedReward, component_weights, reward_components
from rl_lightning.scoring.scorer import Scorer

__all__ = ["Reward", "Scorer", "WeightedReward", "component_weights", "reward_components"]
