"""From completions to rewards: verifiers in sandboxed workers, and the reward functions that use their scores.

May import `sandbox`, `environments` and the layers below. Main exports: `Scorer`; `Reward`, with its default `WeightedReward`,
`BatchReward`, and `as_reward`, which takes functions too; and `reward_components`, `component_weights` and
`group_components`, which apply a reward function to a whole batch.
"""

from rl_lightning.scoring.applying import component_weights, group_components, reward_components
from rl_lightning.scoring.function_reward import as_reward
from rl_lightning.scoring.reward import BatchReward, Reward, WeightedReward
from rl_lightning.scoring.scorer import Scorer

__all__ = [
    "BatchReward",
    "Reward",
    "Scorer",
    "WeightedReward",
    "as_reward",
    "component_weights",
    "group_components",
    "reward_components",
]
