"""Several ranks under Lightning's DDP strategy: what is used of it, and what is not."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from rl_lightning.distributed import Collective, TorchRanks
from rl_lightning.types import UserError, require

log = logging.getLogger(__name__)


def join_ranks(trainer: Trainer, stage: str) -> Collective:
    """The ranks of a trainer whose strategy is ddp; they share each step's prompts, and sum the gradients of its update once.

    Args:
        trainer: with several ranks, which run already.
        stage: "fit", or what else.

    Raises:
        UserError: another strategy or stage, or fewer prompts in a step than ranks.
    """
    strategy: Any = trainer.strategy
    name = type(strategy).__name__.removesuffix("Strategy").lower()
    require("trainer.strategy", name, type(strategy) is DDPStrategy, "ddp, with several devices or nodes")
    require("trainer.devices", trainer.world_size, stage == "fit", f"1 in {stage}")
    prompts, ranks = trainer.datamodule.prompts_per_step, trainer.world_size  # type: ignore[attr-defined]
    require("data.prompts_per_step", prompts, prompts >= ranks, f"at least {ranks}, the number of ranks")
    if strategy.global_rank == 0:
        share = f"each samples and trains on about {prompts / ranks:.3g}"
        log.warning(f"{ranks} ranks share the {prompts} prompts of a step: {share}")
    # Without DistributedDataParallel around the module: its hooks would average in every backward what is summed here once, and
    # hang where one rank has more micro-batches than another.
    strategy.configure_ddp = lambda: None
    return TorchRanks(strategy.root_device)


def refuse_different_weights(parameters: Sequence[nn.Parameter], collective: Collective) -> None:
    """Refuse to train where the ranks would not begin alike, for example because their machines have other versions.

    Raises:
        UserError: the trained weights differ.
    """
    found = hashlib.sha256()
    for parameter in parameters:
        found.update(parameter.detach().to("cpu", torch.float32).numpy().tobytes())
    hashes = collective.gather(found.hexdigest())
    if len(set(hashes)) > 1:
        others = ", ".join(str(rank) for rank, each in enumerate(hashes) if each != hashes[0])
        raise UserError(
            f"trainer.devices: the trained weights of rank {others} do not begin as those of rank 0; use the same versions "
            "everywhere"
        )
