"""A LoRA layer as one operation: the adapter is added to the base layer's output in place, forward and backward.

PEFT computes LoRA (arXiv 2106.09685) with four modules: the output is copied, scaled and added in separate passes, whose results
are all kept in memory, and inputs are cast to the adapters' float32 and back. PEFT's layers still hold the weights; only their
`forward` is replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from rl_lightning.policy.products import product
from rl_lightning.types import UserError, first_line

_ROUTERS = {"gate", "router", "shared_expert_gate"}
"""Names of the linear layers that choose experts. They stay as they are: LoRA on a router moves which experts a token gets."""


def add_adapters(base: Any, config: LoraConfig, device: torch.device, seed: int) -> PeftModel:
    """Add fresh adapters to a base, always in float32: small updates would be lost in the rounding of 16 bits.

    Args:
        base: a causal language model.
        config: the adapters; its `target_modules` are names as for `chosen_linears`, or None.
        device: the base's device.
        seed: seed of the initial values; the process's RNG states do not change.

    Raises:
        UserError: the base cannot be adapted, or not in these layers.
    """
    targets: Any = config.target_modules
    config.target_modules = lora_targets(base, chosen_linears(adapted_linears(base), targets and sorted(targets)))
    orthogonal = str(config.init_lora_weights) == "orthogonal"
    if orthogonal:
        config.init_lora_weights = True  # PEFT would compute it in the base's dtype
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            policy: Any = get_peft_model(base, config)
        except ValueError as error:
            raise UserError(
                f"policy.model_name_or_path: {type(base).__name__} cannot be adapted: {first_line(error)}"
            ) from error
        if orthogonal:
            _orthogonal_init(policy)
    return policy


def adapt_in_place(policy: PeftModel) -> None:
    """Replace the `forward` of every adapted layer of a policy by `adapted`."""
    for layer in policy.modules():
        if is_adapted(layer):
            layer.forward = partial(adapted, layer)


def decoder_layers(base: Any) -> tuple[str, nn.ModuleList]:
    """The layers of a model's text decoder, and their name within the model.

    Args:
        base: a causal language model, also on the meta device.

    Raises:
        UserError: the decoder keeps no list of layers.
    """
    decoder = base.get_decoder()
    for module in decoder.children():
        if isinstance(module, nn.ModuleList) and len(module) == decoder.config.num_hidden_layers:
            return next(name for name, each in base.named_modules() if each is module), module
    raise UserError(f"policy.model_name_or_path: {type(base).__name__} has no decoder layers that are known here")


def adapted_linears(base: Any) -> dict[str, nn.Linear]:
    """The layers that can get an adapter, by name: all linear layers, 4-bit or dense, in the text decoder's layers, but no routers.

    Experts whose weights are one parameter of three dimensions are no linear layers; in such a model only attention is adapted.
    Vision towers are not in the decoder.

    Args:
        base: a causal language model without adapters, also on the meta device.

    Raises:
        UserError: the model has none.
    """
    prefix, layers = decoder_layers(base)
    attention_only = bool(
        fused_experts(base)
    )  # PEFT takes the names of other MLPs, such as down_proj, for experts' parameters
    linears = {
        f"{prefix}.{name}": module
        for name, module in layers.named_modules()
        if isinstance(module, nn.Linear)
        and not _is_router(layers, name)
        and (not attention_only or "attn" in name or "attention" in name)
    }
    if not linears:
        raise UserError(f"policy.model_name_or_path: {type(base).__name__} has no linear layers that LoRA could adapt")
    return linears


def chosen_linears(linears: dict[str, nn.Linear], targets: Sequence[str] | None) -> dict[str, nn.Linear]:
    """The layers that `policy.lora_target_modules` names, each by its whole name or the end of it, as in PEFT; None: all.

    Args:
        linears: those that can get an adapter, by name; see `adapted_linears`.
        targets: names, such as q_proj or model.layers.0.self_attn.q_proj.

    Raises:
        UserError: a name is none of theirs.
    """
    if targets is None:
        return linears
    found = {target: {name for name in linears if f".{name}".endswith(f".{target}")} for target in targets}
    if unknown := [target for target in targets if not found[target]]:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linears}))
        raise UserError(
            f"policy.lora_target_modules: {unknown[0]!r} is none of the linear layers that can be adapted; there are: {known}"
        )
    return {name: module for name, module in linears.items() if any(name in names for names in found.values())}


def lora_targets(base: Any, linears: Iterable[str] | None = None) -> list[str] | str:
    """PEFT's `target_modules` for exactly these layers.

    Args:
        base: a causal language model without adapters.
        linears: names of layers; None for all that can get an adapter.

    Returns:
        The last parts of their names, where no other module but the output head ends in one of these; else a regular expression.
    """
    chosen = set(adapted_linears(base) if linears is None else linears)
    endings = {name.rpartition(".")[2] for name in chosen}
    others = (name for name, _ in base.named_modules() if name not in chosen)
    if endings.isdisjoint(name.rpartition(".")[2] for name in others):
        return sorted(endings)
    prefix, _ = decoder_layers(base)
    inner = sorted({name.removeprefix(f"{prefix}.").partition(".")[2] for name in chosen})
    in_every_layer = rf"{re.escape(prefix)}\.\d+\.({'|'.join(map(re.escape, inner))})"
    if chosen == {name for name, _ in base.named_modules() if re.fullmatch(in_every_layer, name)}:
        return in_every_layer
    return "|".join(map(re.escape, sorted(chosen)))


@torch.no_grad()
def _orthogonal_init(policy: PeftModel) -> None:
    """Initialise A and B with random values whose product is zero, as PEFT's `init_lora_weights="orthogonal"` does, but in float32
    whatever the base is in, in which the product is zero up to rounding. The rank must be even."""
    layer: Any
    for layer in policy.modules():
        if is_adapted(layer):
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            basis, _ = torch.linalg.qr(torch.randn(len(a), len(a)))
            odd, even = basis[0::2], basis[1::2]
            a.copy_((torch.randn(a.shape[1], len(odd)) @ odd).T / 10)
            b.copy_(torch.randn(b.shape[0], len(even)) @ even / 10)


def fused_experts(base: Any) -> list[nn.Parameter]:
    """Weights of experts that are held as one parameter of three dimensions: neither bitsandbytes nor LoRA touches them."""
    _, layers = decoder_layers(base)
    return [
        weight
        for module in layers.modules()
        if not isinstance(module, nn.Conv1d)
        for weight in module.parameters(recurse=False)
        if weight.ndim == 3
    ]


def _is_router(layers: nn.ModuleList, name: str) -> bool:
    parent, _, own = name.rpartition(".")
    return own in _ROUTERS and hasattr(layers.get_submodule(parent), "experts")


def is_adapted(layer: Any) -> bool:
    """Whether a layer is one of PEFT's LoRA layers."""
    return isinstance(layer, LoraLayer)


def adapted(layer: Any, x: Tensor) -> Tensor:
    """(…, in) to (…, out): x W^T + bias + scale (x A^T) B^T, or only the base layer where adapters are disabled.

    Args:
        layer: PEFT's layer, with plain LoRA on a linear layer, 4-bit or dense.
        x: input, in the dtype that the base computes in.
    """
    base = layer.get_base_layer()
    if layer.disable_adapters:
        return base(x)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return _AdaptedProduct.apply(x, a, b, base, layer.scaling["default"])


def dense_weight(layer: Any) -> Tensor:
    """(out, in) weights of a linear layer, dequantised if they are in 4 bits."""
    if isinstance(layer, bnb.nn.Linear4bit):
        weight: Any = layer.weight
        return bnb.functional.dequantize_4bit(weight.data, weight.quant_state)
    return layer.weight


def dithered(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a sum of base and adapter to bfloat16 up or down, so that what is lost is nothing on average.

    To the nearest, most weights would stay what they are in the base until the adapter has grown: after a step of 2e-4 the sampler
    would have made 43% of the policy's change of log-probs (docs/rollouts.md). What is added before the last 16 bits are cut off is
    the golden-ratio sequence, which is spread more evenly than random numbers, and the same in a resumed run. A base that is exact
    in bfloat16 stays as it is.

    Args:
        weight: float32; changed in place.
        dtype: of the copy; float32 and float16, which has eight times as fine steps, are left to the copy.
    """
    if dtype != torch.bfloat16:
        return weight
    bits = weight.view(torch.int32)
    below = torch.arange(bits.numel(), dtype=torch.int32, device=bits.device)
    below *= 40503  # wraps round
    below &= 0xFFFF
    bits += below.view_as(bits)
    bits &= -0x10000
    return weight


def base_product(layer: Any, x: Tensor) -> Tensor:
    """What a linear layer gives, dense or in 4 bits, without a gradient; always a new tensor."""
    weight: Any = layer.weight
    dtype = weight.quant_state.dtype if isinstance(layer, bnb.nn.Linear4bit) else weight.dtype
    if x.device.type != "cpu" or x.dtype != dtype or torch.is_autocast_enabled("cpu"):
        return layer(x)
    return product(x, dense_weight(layer), layer.bias)


class _AdaptedProduct(torch.autograd.Function):
    """The adapted product. The base is frozen: it gets no gradient, and its output need not be saved for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, base: Any, scale: float) -> Tensor:
        out = base_product(base, x)
        rows = x.to(out.dtype).flatten(0, -2)
        # The cast is needed where autocast gives this product another dtype than the base layer's output.
        low = (rows @ a.to(out.dtype).T).to(out.dtype)
        out.flatten(0, -2).addmm_(low, b.to(out.dtype).T, alpha=scale)
        ctx.save_for_backward(rows, low, a, b)
        ctx.base, ctx.scale, ctx.shape = base, scale, x.shape
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        rows, low, a, b = ctx.saved_tensors
        grad = grad.flatten(0, -2)
        grad_low = (grad @ b.to(grad.dtype)).mul_(ctx.scale)
        grad_b = (grad.T @ low).to(b.dtype).mul_(ctx.scale)
        grad_a = (grad_low.T @ rows).to(a.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = product(grad, dense_weight(ctx.base).to(grad.dtype).T)
            grad_x = grad_x.addmm_(grad_low, a.to(grad.dtype)).view(ctx.shape)
        return grad_x, grad_a, grad_b, None, None
