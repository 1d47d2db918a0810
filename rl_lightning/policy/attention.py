"""Hook rollouts and updates into the attention of transformers' models, through their attention interface.

Linear layers, norms and MLPs work on single tokens, so rollouts and updates can each lay tokens out in their own way, and only
attention must know how. A rollout, which holds keys and values itself, passes `attend=` to the model's forward; an update, whose
tokens are packed, passes `rows=`. A model that is called with neither behaves as usual. What a layer's attention does beyond plain
causal attention (a sliding window, soft-capped scores, sinks) is what transformers passes to it, see `AttentionKind`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward

from rl_lightning.policy.attention_kernels import attention_kernel

SCORES = 2**24
"""Scores in memory at once in attention that PyTorch has no fused kernel for, 67 MB in float32, unless one query has more."""


@dataclass(frozen=True)
class Rows:
    """How S packed tokens are arranged in rows for attention: right-padded blocks of rows of similar length.

    A token may be in several rows (a shared prompt). Its output is taken from the first of them, because it is the same in all,
    and its gradient is summed over all.

    Attributes:
        blocks: each (R, W) int64, the token in each padded slot of R rows; any token after the end of a row.
        token_slot: (S,) int64, the first slot of each token, numbered over all blocks one after another.
    """

    blocks: tuple[Tensor, ...]
    token_slot: Tensor

    def to(self, device: torch.device) -> Rows:
        """The same rows on another device."""
        return Rows(tuple(block.to(device) for block in self.blocks), self.token_slot.to(device))

    def unpack(self, packed: Tensor) -> Iterator[Tensor]:
        """From packed tokens (1, heads, S, D) to rows (R, heads, W, D), for each block."""
        tokens = packed[0].transpose(0, 1)
        for block in self.blocks:
            yield tokens.index_select(0, block.flatten()).unflatten(0, block.shape).transpose(1, 2)

    def repack(self, outputs: Sequence[Tensor]) -> Tensor:
        """From rows (R, W, heads, D) of each block to packed tokens (1, S, heads, D)."""
        return torch.cat([out.flatten(0, 1) for out in outputs]).index_select(0, self.token_slot)[None]


@dataclass(frozen=True)
class AttentionKind:
    """How a layer attends.

    Attributes:
        scale: multiplies the products of queries and keys.
        window: a token attends to this many tokens, itself included; None: to all before it.
        softcap: scores are softcap * tanh(score / softcap) (Gemma 2, arXiv 2408.00118); None: unchanged.
        sinks: (heads,) a further logit in each head's softmax, which belongs to no token (GPT-OSS); None: there is none.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def fused(self) -> bool:
        """Whether PyTorch's fused attention can compute it with a mask."""
        return self.softcap is None and self.sinks is None

    def is_plain(self, width: int) -> bool:
        """Whether it is plain causal attention in sequences of this length."""
        return self.fused and (self.window is None or self.window >= width)


def causal_attention(query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind) -> Tensor:
    """Attention of whole, right-padded rows: each token attends to those up to itself that `kind` lets it see.

    Args:
        query: (R, heads, W, D).
        key: (R, kv heads, W, D).
        value: (R, kv heads, W, D).
        kind: how the layer attends.

    Returns:
        (R, heads, W, D).
    """
    width = query.shape[2]
    mask = None if kind.is_plain(width) else causal_mask(width, kind.window, query)
    kernel = attention_kernel(query, key, value, mask) if kind.fused else "scores"
    if kernel == "scores":
        return masked_attention(query, key, value, causal_mask(width, kind.window, query), kind)
    if kernel == "repeated":
        key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (key, value))
    settings: dict[str, Any] = {"attn_mask": mask, "is_causal": mask is None, "scale": kind.scale}
    return F.scaled_dot_product_attention(query, key, value, enable_gqa=kernel == "grouped", **settings)


def causal_mask(width: int, window: int | None, like: Tensor) -> Tensor:
    """(W, W) mask to be added to scores, in the dtype and on the device of `like`."""
    position = torch.arange(width, device=like.device)
    distance = position[:, None] - position
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    return torch.zeros(width, width, dtype=like.dtype, device=like.device).masked_fill_(hidden, -torch.inf)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, kind: AttentionKind) -> Tensor:
    """Attention of any kind by separate operations, with `SCORES` scores in memory at once; they are computed again in backward.

    Args:
        query: (R, heads, t, D).
        key: (R, kv heads, L, D).
        value: (R, kv heads, L, D).
        mask: added to the scores; can be broadcast to (R, heads, t, L).
        kind: how the layer attends; its window is in the mask.

    Returns:
        (R, heads, t, D).
    """
    rows, heads, queries, _ = query.shape
    at_once = max(1, SCORES // (heads * key.shape[2]))  # queries of all rows together
    mask = mask.expand(rows, -1 if mask.dim() == 4 else 1, queries, -1)
    split_rows = zip(*(each.split(max(1, at_once // queries)) for each in (query, key, value, mask)), strict=True)
    attended = []
    for q, k, v, m in split_rows:
        parts = zip(q.split(at_once, dim=2), m.split(at_once, dim=2), strict=True)
        attended.append(
            torch.cat([_recomputed(_attend_by_scores, part, k, v, hidden, kind) for part, hidden in parts], 2)
        )
    return torch.cat(attended)


def _recomputed(function: Any, *args: Any) -> Any:
    """The function's result; autograd saves its arguments alone."""
    if not torch.is_grad_enabled():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=False)


def _attend_by_scores(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, kind: AttentionKind) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    scores = query @ key.transpose(2, 3) * kind.scale
    if kind.softcap is not None:
        scores = torch.tanh(scores / kind.softcap) * kind.softcap
    scores = scores + mask
    if kind.sinks is not None:
        sinks = kind.sinks.to(scores.dtype)[:, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=3)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return weights[..., : key.shape[2]] @ value


def register_attention(kernel: str) -> str:
    """Register an attention implementation that accepts `attend=` or `rows=`, and is `kernel` without them.

    Args:
        kernel: name of a transformers attention implementation. Rows are right-padded, so causal attention needs no padding mask.

    Returns:
        its name, for `attn_implementation`.
    """
    # transformers refuses a name that contains "sdpa" for families whose attention its own sdpa function cannot compute.
    name = f"rl_lightning_{'fused' if kernel == 'sdpa' else kernel}"
    plain: Any = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, eager_attention_forward)

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **settings: Any) -> Any:
        attend, rows, kind = settings.pop("attend", None), settings.pop("rows", None), _kind(module, settings)
        settings["dropout"] = 0.0  # the update must have the log-probs that were sampled from
        if attend is not None:
            return attend(module.layer_idx, query, key, value, kind).transpose(1, 2), None
        if rows is not None:
            outputs = []
            for q, k, v in zip(*(rows.unpack(each) for each in (query, key, value)), strict=True):
                outputs.append(_attend_block(q, k, v, kind, kernel).transpose(1, 2))
            return rows.repack(outputs), None
        if not kind.fused:
            added = causal_mask(query.shape[2], kind.window, query) if mask is None else _added(mask, query.dtype)
            return masked_attention(query, key, value, added, kind).transpose(1, 2), None
        return plain(module, query, key, value, mask, **settings)

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    return name


def _kind(module: Any, settings: dict[str, Any]) -> AttentionKind:
    """How the layer attends, from the arguments that transformers passes to its attention functions."""
    scale = settings.get("scaling")
    scale = module.head_dim**-0.5 if scale is None else scale
    return AttentionKind(scale, settings.get("sliding_window"), settings.get("softcap"), settings.get("s_aux"))


def _attend_block(query: Tensor, key: Tensor, value: Tensor, kind: AttentionKind, kernel: str) -> Tensor:
    if kernel != "eager":
        return causal_attention(query, key, value, kind)
    return masked_attention(query, key, value, causal_mask(query.shape[2], kind.window, query), kind)


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as it is added to scores; transformers' masks for sdpa are true where a token attends."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def no_mask(device: torch.device) -> Tensor:
    """A placeholder for `attention_mask=` with `attend=` or `rows=`; it is never read. Without it, transformers would build a
    mask of S x S for packed tokens, and first read a value for which the host waits for the GPU."""
    return torch.empty(1, 1, 1, 1, device=device)
