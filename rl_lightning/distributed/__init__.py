"""Communication between ranks behind one small protocol, and how a step is divided among them.

May import only torch and `types`, so that every package above can use it. Main exports: `Collective`, implemented by
`SingleProcess` and `TorchRanks`; the two ways in which a step is divided, `share_of_prompts` for sampling and `share_of_groups` for
the update; and `sum_gradients`, `fill_missing` and `logprobs_of_all`, which combine what the ranks have computed.
"""

from rl_lightning.distributed.collective import Collective, SingleProcess
from rl_lightning.distributed.shares import (
    fill_missing,
    logprobs_of_all,
    share_of_groups,
    share_of_prompts,
    sum_gradients,
)
from rl_lightning.distributed.torch_ranks import TorchRanks

__all__ = [
    "Collective",
    "SingleProcess",
    "TorchRanks",
    "fill_missing",
    "logprobs_of_all",
    "share_of_groups",
    "share_of_prompts",
    "sum_gradients",
]
