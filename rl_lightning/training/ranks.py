"""Several ranks under Lightning's DDP strategy: what is used of it, and what is not."""

from __future__ import annotations

import hashlib
import logging
from itertools import pairwise
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from rl_lightning.distributed import Collective, TorchRanks
from rl_lightning.policy.placement import replica_devices
from rl_lightning.types import UserError, require

log = logging.getLogger(__name__)

_STRATEGIES = ("DDPStrategy", "RayDDPStrategy")
"""Lightning's own, and that of ray.train.lightning, which takes the device from Ray; any other may sum or divide differently."""


def first_devices(devices: Any, per_replica: int) -> Any:
    """`trainer.devices` of replicas that take several GPUs each: the first GPU of each.

    Args:
        devices: a number of replicas; or -1 or auto, for as many as there are GPUs for; or the first GPUs, as a list or
            "0,2", returned as they are.
        per_replica: GPUs of a replica.
    """
    if isinstance(devices, list) or "," in str(devices) or not torch.cuda.is_available():
        return devices
    many = str(devices) in ("auto", "-1")
    require(
        "trainer.devices",
        devices,
        many or str(devices).isdecimal(),
        "a number of replicas, a list of first GPUs, or auto",
    )
    count = torch.cuda.device_count() // per_replica if many else int(devices)
    require("trainer.devices", count, count >= 1, f"at least 1, with {per_replica} GPUs each")
    return [number * per_replica for number in range(count)]


def devices_of_replica(strategy: Any, count: int) -> list[torch.device]:
    """The devices of this rank's replica: the trainer's device and those after it.

    Raises:
        UserError: there are too few, or another rank's replica begins among them; or the strategy splits weights.
    """
    _refuse_sharding(strategy)
    devices = replica_devices(strategy.root_device, count)
    roots = sorted(each.index or 0 for each in getattr(strategy, "parallel_devices", None) or devices[:1])
    apart = all(after - before >= count for before, after in pairwise(roots))
    allowed = f"first GPUs that are {count} apart, such as [0, {count}], with policy.devices_per_replica {count}"
    require("trainer.devices", roots, count == 1 or apart, allowed)
    return devices


def states_to_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Move an optimizer's moments to the devices of their parameters: Lightning moves those of a checkpoint to one device."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            state[name] = value.to(parameter.device)


def join_ranks(trainer: Trainer, stage: str) -> Collective:
    """The ranks of a trainer whose strategy is ddp; they share each step's prompts, and sum the gradients of its update once.

    Args:
        trainer: with several ranks, which run already; its strategy is Lightning's ddp, or Ray's form of it.
        stage: "fit", or what else.

    Raises:
        UserError: another strategy or stage, or fewer prompts in a step than ranks.
    """
    strategy: Any = trainer.strategy
    _refuse_sharding(strategy)
    name = type(strategy).__name__.removesuffix("Strategy").lower()
    known = isinstance(strategy, DDPStrategy) and type(strategy).__name__ in _STRATEGIES
    require("trainer.strategy", name, known, "ddp, with several devices or nodes")
    require("trainer.devices", trainer.world_size, stage == "fit", f"1 in {stage}")
    ranks: int = trainer.world_size
    prompts = getattr(trainer.datamodule, "prompts_per_step", ranks)  # type: ignore[attr-defined]
    require("data.prompts_per_step", prompts, prompts >= ranks, f"at least {ranks}, the number of ranks")
    if strategy.global_rank == 0:
        share = f"each samples and trains on about {prompts / ranks:.3g}"
        log.warning(f"{ranks} ranks share the {prompts} prompts of a step: {share}")
    # Without DistributedDataParallel around the module: its hooks would average in every backward what is summed here once, and
    # hang where one rank has more micro-batches than another.
    strategy.configure_ddp = lambda: None
    collective = TorchRanks(strategy.root_device)
    # Lightning's own barriers too say in a line that another rank is gone.
    strategy.barrier = lambda *_: collective.any(False)
    return collective


def refuse_different_starts(pl_module: Any, collective: Collective) -> None:
    """Refuse to train where the ranks would not begin alike, for example because their machines have other commands or files.

    Args:
        pl_module: an `AdapterModule` whose policy and checkpoint, if there is one, have been loaded.
        collective: the ranks.

    Raises:
        UserError: the checkpoint's step, a setting or the weights differ.
    """
    settings = pl_module.settings() | {"trainer.max_steps": str(pl_module.trainer.max_steps)}
    starts = collective.gather((pl_module.loaded_step, settings, _sample_hash(pl_module.policy.model)))
    first_step, first_settings, first_hash = starts[0]
    for rank, (step, settings, found) in enumerate(starts):
        if step != first_step:
            raise UserError(
                f"ckpt_path: rank {rank} begins at step {step}, and rank 0 at step {first_step}; trainer.default_root_dir must be "
                "in a file system that all machines share"
            )
        for name, value in first_settings.items():
            allowed = f"{value}, as on rank 0"
            require(f"{name} on rank {rank}", settings.get(name), settings.get(name) == value, allowed)
        if found != first_hash:
            raise UserError(
                f"trainer.devices: the weights of rank {rank} do not begin as those of rank 0; use the same model files and "
                "versions everywhere"
            )


def _sample_hash(model: nn.Module, numbers: int = 1024) -> str:
    """A hash of some numbers of each parameter, whatever it is stored in."""
    found = hashlib.sha256()
    for parameter in model.parameters():
        sample = parameter.detach().flatten()[:: max(1, parameter.numel() // numbers)]
        found.update(sample.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _refuse_sharding(strategy: Any) -> None:
    """Refuse strategies that split each weight over several devices.

    Raises:
        UserError: it is one.
    """
    name = type(strategy).__name__.removesuffix("Strategy")
    if name in ("FSDP", "DeepSpeed", "ModelParallel"):
        raise UserError(
            f"trainer.strategy: {name} would split each weight, which bitsandbytes' 4-bit ones do not bear (bitsandbytes #1945, "
            "accelerate #3987), and gather all of them for every sampled token; use ddp, and for a model larger than one GPU, with "
            "adapters, model.policy.devices_per_replica"
        )
