"""A copy of a policy in float32 with few layers and a small vocabulary, of its own modules and weights; for the self-test."""

from __future__ import annotations

import copy
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn

from rl_lightning.policy.lora import decoder_layers, dense_weight
from rl_lightning.policy.placement import disconnect
from rl_lightning.policy.policy import Policy

VOCABULARY = 1024
"""Token ids of the copy, taken from the whole vocabulary at equal distances."""

_MIN_LAYERS = 2


def short_copy(policy: Policy, device: torch.device, window: int) -> Policy:
    """Copy the policy's modules, in float32, with one decoder layer of each kind, and at least two.

    Layers are of one kind if all numbers, strings and switches on their modules are the same. 4-bit weights are dequantised.
    Adapters get random values, because those of a new policy have no effect.

    Args:
        policy: it does not change.
        device: device of the copy.
        window: replaces the length of sliding windows, so that short sequences go beyond it, or none does.

    Returns:
        the copy; its token ids are 0 to `head.words` - 1.
    """
    base = policy.base
    _, layers = decoder_layers(base)
    numbers = _one_of_each_kind(layers)
    memo = _replacements(policy, [layers[number] for number in numbers], device)
    short = copy.deepcopy(policy, memo)
    short.layer_devices = (device,) * len(numbers)
    _renumber(short, numbers, len(layers))
    _set_windows(short, window)
    embeddings = short.model.get_input_embeddings()
    embeddings.num_embeddings, embeddings.padding_idx = len(embeddings.weight), None
    short.compute_dtype = torch.float32
    words = len(_kept_ids(policy))
    short.head = type(policy.head)(
        short.model.get_output_embeddings().weight, words, policy.head.scale, policy.head.softcap
    )
    generator = torch.Generator().manual_seed(0)
    for name, parameter in short.model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
    short._trained = {name: p for name, p in short.model.named_parameters() if p.requires_grad}
    short._weights = short.trained_parameters()
    short.train(policy.training)
    return short


def _kept_ids(policy: Policy) -> Tensor:
    words = policy.head.words
    return torch.linspace(0, words - 1, min(VOCABULARY, words)).long()


def _one_of_each_kind(layers: Any) -> list[int]:
    kinds: dict[str, int] = {}
    for number, layer in enumerate(layers):
        kinds.setdefault(repr(_settings(layer)), number)
    numbers = sorted(kinds.values())
    others = [number for number in range(len(layers)) if number not in numbers]
    return sorted(numbers + others[: max(0, _MIN_LAYERS - len(numbers))])


def _settings(layer: nn.Module) -> list[tuple[str, str, Any]]:
    """The numbers, strings and switches on the modules of a layer, and their classes."""
    return [
        (name, type(module).__name__, {k: v for k, v in vars(module).items() if k != "layer_idx" and _is_setting(v)})
        for name, module in layer.named_modules()
    ]


def _is_setting(value: Any) -> bool:
    return value is None or isinstance(value, int | float | str)


def _replacements(policy: Policy, layers: list[nn.Module], device: torch.device) -> dict[int, Any]:
    """`deepcopy`'s memo: what stands in the copy in place of an object of the policy, by its id."""
    base = policy.base
    decoder, head = base.get_decoder(), base.get_output_embeddings()
    inside = {id(module) for part in (decoder, head) for module in part.modules()}
    memo: dict[int, Any] = {id(policy.tokenizer): policy.tokenizer, id(policy._trained): {}}
    memo |= {id(kept): [] for kept in (policy._weights, policy._reference)}
    for module in base.modules():  # such as a vision tower: never run, and so not copied
        if id(module) not in inside and not any(id(part) in inside for part in module.modules()):
            memo[id(module)] = module
    ids = _kept_ids(policy).to(policy.device)
    tables = {id(base.get_input_embeddings().weight), id(head.weight), id(getattr(head, "bias", None))}

    def full(tensor: Tensor) -> Tensor:
        chosen = tensor.detach()[ids] if id(tensor) in tables else tensor.detach()
        copied = chosen.to(device, torch.float32 if tensor.is_floating_point() else None, copy=True)
        return nn.Parameter(copied, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied

    _, all_layers = decoder_layers(base)
    unlisted = {id(module) for layer in all_layers for module in layer.modules()}
    listed = {id(module) for layer in layers for module in layer.modules()}
    for part in (decoder, head):
        for module in part.modules():
            if id(module) in unlisted and id(module) not in listed:
                continue
            if isinstance(module, bnb.nn.Linear4bit):
                memo[id(module)] = _dense(module, device)
                continue
            for tensor in [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]:
                if isinstance(tensor, Tensor) and id(tensor) not in memo:
                    memo[id(tensor)] = full(tensor)
    memo[id(all_layers)] = nn.ModuleList([copy.deepcopy(layer, memo) for layer in layers])
    disconnect(memo[id(all_layers)])
    return memo


def _dense(layer: Any, device: torch.device) -> nn.Linear:
    with torch.device("meta"):
        dense = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    dense.weight = nn.Parameter(dense_weight(layer).to(device, torch.float32), False)
    if layer.bias is not None:
        dense.bias = nn.Parameter(layer.bias.detach().to(device, torch.float32), False)
    return dense


def _renumber(short: Policy, numbers: list[int], layers: int) -> None:
    """Give the layers of the copy their new numbers, and choose theirs from what the config lists by layer."""
    base = short.base
    config = base.config.get_text_config()
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == layers:
            setattr(config, name, [value[number] for number in numbers])
    config.num_hidden_layers = len(numbers)
    for number, layer in enumerate(decoder_layers(base)[1]):
        module: Any
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    for each in {id(c): c for c in (base.config, config)}.values():
        each.dtype = torch.float32


def _set_windows(short: Policy, window: int) -> None:
    base = short.base
    for owner in [*base.modules(), base.config.get_text_config()]:
        if isinstance(getattr(owner, "sliding_window", None), int):
            owner.sliding_window = window
