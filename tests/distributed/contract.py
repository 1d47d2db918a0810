"""What each of two processes of torch.distributed checks of the collective."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist

from rl_lightning.distributed import TorchRanks
from rl_lightning.types import UserError


def contract(rank: int, file: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    ranks = TorchRanks(torch.device("cpu"))
    assert (ranks.rank, ranks.world_size) == (rank, 2)
    mine = torch.tensor([1.0, 10.0]) * (rank + 1)
    assert ranks.sum(mine).tolist() == [3.0, 30.0]
    assert mine.tolist() == [1.0 * (rank + 1), 10.0 * (rank + 1)], "the argument is not changed"
    assert ranks.any(rank == 1)
    assert not ranks.any(False)
    gathered = ranks.gather({"rank": rank, "values": torch.arange(rank + 2)})
    assert [each["rank"] for each in gathered] == [0, 1]
    assert [len(each["values"]) for each in gathered] == [2, 3]
    assert ranks.broadcast(lambda: ("from", torch.ones(2)) if rank == 0 else pytest.fail("not called"))[0] == "from"

    def fails():
        raise KeyError("nothing")

    with pytest.raises(KeyError if rank == 0 else UserError, match="nothing"):
        ranks.broadcast(fails)
    assert ranks.gather(rank) == [0, 1], "after a failure the ranks go on together"
    if rank == 1:
        os._exit(0)
    with pytest.raises(UserError, match="another rank has ended or cannot be reached"):
        ranks.gather(rank)
