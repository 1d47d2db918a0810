"""Find out how much memory a device has to plan with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil
import torch

from rl_lightning.memory.arithmetic import CUDA_CONTEXT
from rl_lightning.types import require


@dataclass(frozen=True)
class Device:
    """A device to plan for.

    Attributes:
        name: name to display.
        kind: "cuda" or "cpu".
        bytes: memory that the run may use, on each card.
        cards: GPUs that the model's layers are laid over; 1 for a CPU.
        there: the device itself, which can be asked for its kernels; None for a GPU that need not be present.
    """

    name: str
    kind: str
    bytes: float
    cards: int = 1
    there: torch.device | None = None


def gpu_of_size(gigabytes: float, cards: int = 1) -> Device:
    """One or several GPUs of a given size, which need not be present.

    Args:
        gigabytes: memory of each in units of 10^9 bytes; a GPU that is sold with 8 GB has a little more than 8 of these.
        cards: their number.

    Raises:
        UserError: the size is not above 0, or the number below 1.
    """
    require("vram", gigabytes, gigabytes > 0, "above 0, in GB")
    require("cards", cards, cards >= 1, "at least 1")
    name = f"a GPU with {gigabytes:g} GB" if cards == 1 else f"{cards} GPUs with {gigabytes:g} GB each"
    return Device(name, "cuda", gigabytes * 1e9, cards)


def memory_of_cards(devices: Sequence[torch.device], processes: int = 1) -> Device:
    """One or several devices of one model, each counted as the one with the least memory; see `device_memory`."""
    found = [device_memory(device, processes) for device in devices]
    least = min(found, key=lambda each: each.bytes)
    return least if len(found) == 1 else replace(least, name=f"{len(found)} x {least.name}", cards=len(found))


def device_memory(device: torch.device, processes: int = 1) -> Device:
    """The GPU with its free memory (at most the share that `torch.cuda.set_per_process_memory_fraction` allows), or the computer
    with all its memory.

    Args:
        device: a CUDA device or the CPU.
        processes: how many share the computer; each GPU has one.
    """
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        allowed = properties.total_memory * torch.cuda.get_per_process_memory_fraction(device)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) + CUDA_CONTEXT
        return Device(properties.name, "cuda", min(allowed, free), there=device)
    name = "this computer" if processes == 1 else f"one of {processes} processes on this computer"
    return Device(name, "cpu", psutil.virtual_memory().total / processes)
