"""A LoRA layer as one operation: the adapter is added to the base layer's output in place, forward and backward.

PEFT computes LoRA (arXiv 2106.09685) with four modules: the output is copied, scaled and added in separate passes, whose results
are all kept in memory, and inputs are cast to the adapters' float32 and back. PEFT's layers still hold the weights; only their
`forward` is replaced.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import bitsandbytes as bnb
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor


def adapt_in_place(policy: PeftModel) -> None:
    """Replace the `forward` of every adapted layer of a policy by `adapted`."""
    for layer in policy.modules():
        if is_adapted(layer):
            layer.forward = partial(adapted, layer)


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


class _AdaptedProduct(torch.autograd.Function):
    """The adapted product. The base is frozen: it gets no gradient, and its output need not be saved for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor, b: Tensor, base: Any, scale: float) -> Tensor:
        out = base(x)
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
            grad_x = grad @ dense_weight(ctx.base).to(grad.dtype)
            grad_x = grad_x.addmm_(grad_low, a.to(grad.dtype)).view(ctx.shape)
        return grad_x, grad_a, grad_b, None, None
