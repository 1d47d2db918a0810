"""Communication between ranks behind one small protocol, and how a step is divided among them; today there is one rank.

May import only torch and `types`, so that every package above can use it. Main exports: `Collective` and its only implementation,
`SingleProcess`; the two ways in which a step is divided, `share_of_prompts` for sampling and `share_of_groups` for the update;
and `sum_gradients` and `fill_missing`, which combine what the ranks have computed.
"""

from rl_lightning.distributed.collective import Collective, SingleProcess
from rl_lightning.distributed.shares import fill_missing, share_of_groups, share_of_prompts, sum_gradients

__all__ = ["Collective", "SingleProcess", "fill_missing", "share_of_groups", "share_of_prompts", "sum_gradients"]
