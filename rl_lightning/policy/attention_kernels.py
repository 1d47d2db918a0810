"""Which of PyTorch's kernels a device has for causal attention: it is asked, because the fallback takes quadratic memory.

Where no fused kernel takes its arguments, `scaled_dot_product_attention` computes all scores at once and saves them for the
backward pass. With query heads that share key heads that is so in float32 on any GPU, and in 16 bits on GPUs before Ampere: only
flash attention takes shared heads, and it knows neither.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["grouped", "repeated", "scores"]
"""grouped: a fused kernel takes key heads that several query heads share; repeated: one takes them if they are repeated for every
query head; scores: none does, so scores are computed by separate operations, few at once."""


def attention_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Kernel:
    """The kernel for attention of these, on their device; on a CPU, whose one takes all, `grouped`.

    Args:
        query: (R, heads, W, D).
        key: (R, kv heads, W, D).
        value: (R, kv heads, W, D).
        mask: (W, W), added to the scores; None for plain causal attention.
    """
    return asked_kernel(query, key, value, mask) if query.is_cuda else "grouped"


def asked_kernel(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Kernel:
    """What PyTorch says of a GPU; see `attention_kernel`."""
    if is_fused(query, key, value, mask):
        return "grouped"
    shared = query.shape[1] != key.shape[1]
    key, value = (each[:, :1].expand(-1, query.shape[1], -1, -1) for each in (key, value))
    return "repeated" if shared and is_fused(query, key, value, mask) else "scores"


def is_fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether flash attention or memory-efficient attention takes these tensors."""
    shared = query.shape[1] != key.shape[1]
    params = torch.backends.cuda.SDPAParams(query, key, value, mask, 0.0, mask is None, shared)
    ask = torch.backends.cuda.can_use_flash_attention, torch.backends.cuda.can_use_efficient_attention
    return any(can_use(params) for can_use in ask)


def planned_kernel(heads: int, kv_heads: int, width: int, dtype: torch.dtype, device: torch.device | None) -> Kernel:
    """The kernel of the update, for the memory plan.

    Args:
        heads: query heads.
        kv_heads: key heads.
        width: D, of a head.
        dtype: in which attention is computed.
        device: where; None for a GPU that is not there to be asked: one since Ampere, with flash attention in 16 bits.
    """
    if device is None:
        return "repeated" if dtype == torch.float32 and heads != kv_heads else "grouped"
    query, key = (torch.empty(1, count, 8, width, dtype=dtype, device=device) for count in (heads, kv_heads))
    return attention_kernel(query.requires_grad_(), key.requires_grad_(), key)
