"""Lay the decoder layers of one model over several devices, in blocks of consecutive layers.

All else stays on the first device: embedding, last norm, output head, sampling, loss. Hidden states go through the devices in their
order and return to the first. With the head on the last device there would be as many transfers, of token ids, and a head that is
tied to the embedding would be held twice. A transfer changes no bit, so neither does the number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from rl_lightning.policy.lora import decoder_layers
from rl_lightning.types import require


def replica_devices(root: torch.device, count: int) -> list[torch.device]:
    """The devices of a model: its first one and those after it.

    Raises:
        UserError: there are too few.
    """
    if count == 1:
        return [root]
    there = torch.cuda.device_count() - (root.index or 0) if root.type == "cuda" else 1
    allowed = f"at most {there}, the number of GPUs from {root} on" if root.type == "cuda" else "1 on a CPU"
    require("policy.devices_per_replica", count, count <= there, allowed)
    return [torch.device("cuda", (root.index or 0) + number) for number in range(count)]


@dataclass(frozen=True)
class Stage:
    """Consecutive decoder layers on one device.

    Attributes:
        device: their device.
        layers: their numbers.
    """

    device: torch.device
    layers: range


def stages(devices: Sequence[torch.device]) -> list[Stage]:
    """The stages of a model.

    Args:
        devices: of each decoder layer, the first of them that of all else.
    """
    found = []
    for device, numbers in groupby(range(len(devices)), key=lambda number: devices[number]):
        layers = list(numbers)
        found.append(Stage(device, range(layers[0], layers[-1] + 1)))
    return found


def device_map(config: PretrainedConfig, devices: Sequence[torch.device]) -> dict[str, torch.device]:
    """The `device_map` of `from_pretrained`.

    Args:
        config: the model's config.
        devices: of each decoder layer.
    """
    with torch.device("meta"):
        prefix, _ = decoder_layers(AutoModelForCausalLM.from_config(config))
    elsewhere = {f"{prefix}.{number}": device for number, device in enumerate(devices) if device != devices[0]}
    return {"": devices[0], **elsewhere}


def connect(layers: nn.ModuleList, devices: Sequence[torch.device]) -> None:
    """Let hidden states, and what all layers are given, move to the layers' devices in a forward pass, and autograd move gradients
    back. On one device nothing is changed.

    Args:
        layers: the decoder layers, each on its device.
        devices: their devices.
    """
    all_stages = stages(devices)
    if len(all_stages) == 1:
        return
    for stage, after in zip(all_stages, [*all_stages[1:], all_stages[0]], strict=True):
        copies = _Copies(stage.device)
        layers[stage.layers[0]].register_forward_pre_hook(copies.forget)
        for number in stage.layers:
            layers[number].register_forward_pre_hook(copies.use, with_kwargs=True)
        layers[stage.layers[-1]].register_forward_hook(_Sender(after.device))


def disconnect(layers: Sequence[Any]) -> None:
    """Undo `connect`, of layers that are to be on one device."""
    for layer in layers:
        for hooks in (layer._forward_pre_hooks, layer._forward_pre_hooks_with_kwargs, layer._forward_hooks):
            hooks.clear()


def remove_dispatch_hooks(model: nn.Module) -> None:
    """Remove the hooks by which accelerate moves the inputs of every module of a model that was loaded to several devices.

    `connect` moves less, and knows what packed attention is given.
    """
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(model, recurse=True)
    for module in model.modules():
        vars(module).pop("forward", None)  # accelerate puts back the method as an attribute


class _Sender:
    """A hook that moves the output of a stage's last layer to the next device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self, layer: nn.Module, args: Any, out: Any) -> Any:
        return out.to(self._device) if isinstance(out, Tensor) else (out[0].to(self._device), *out[1:])


class _Copies:
    """Hooks that copy what all layers are given alike (rotary tables, positions, the rows of packed attention) to a stage's device,
    once for all its layers."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies: dict[int, tuple[Any, Any]] = {}  # by id; the original is kept, so that its id stays its own

    def forget(self, layer: nn.Module, args: Any) -> None:
        """Begin a forward pass, before the stage's first layer."""
        self._copies.clear()

    def use(self, layer: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Exchange a layer's arguments for their copies."""
        return tuple(map(self._here, args)), {name: self._here(value) for name, value in kwargs.items()}

    def _here(self, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(self._here, value))
        if not hasattr(value, "to") or getattr(value, "device", None) == self._device:
            return value
        if isinstance(value, Tensor) and value.requires_grad:
            return value.to(self._device)
        if id(value) not in self._copies:
            self._copies[id(value)] = value, value.to(self._device)
        return self._copies[id(value)][1]
