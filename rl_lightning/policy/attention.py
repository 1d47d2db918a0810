"""Hook rollouts and updates into the attention of transformers' models, through their attention interface.

Linear layers, norms and MLPs work on single tokens, so rollouts and updates can each lay tokens out in their own way, and only
attention must know how. A rollout, which holds keys and values itself, passes `attend=` to the model's forward; an update, whose
tokens are packed, passes `rows=`. A model that is called with neither behaves as usual.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import eager_attention_forward


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

    def unpack(self, packed: Tensor) -> Iterator[Tensor]:
        """From packed tokens (1, heads, S, D) to rows (R, heads, W, D), for each block."""
        tokens = packed[0].transpose(0, 1)
        for block in self.blocks:
            yield tokens.index_select(0, block.flatten()).unflatten(0, block.shape).transpose(1, 2)

    def repack(self, outputs: Sequence[Tensor]) -> Tensor:
        """From rows (R, W, heads, D) of each block to packed tokens (1, S, heads, D)."""
        return torch.cat([out.flatten(0, 1) for out in outputs]).index_select(0, self.token_slot)[None]


def register_attention(kernel: str) -> str:
    """Register an attention implementation that accepts `attend=` or `rows=`, and is `kernel` without them.

    Args:
        kernel: name of a transformers attention implementation. Rows are right-padded, so causal attention needs no padding mask.

    Returns:
        its name, for `attn_implementation`.
    """
    name = f"rl_lightning_{kernel}"
    plain: Any = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, eager_attention_forward)

    def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **settings: Any) -> Any:
        attend, rows = settings.pop("attend", None), settings.pop("rows", None)
        if attend is not None:
            return attend(module.layer_idx, query, key, value, settings["scaling"]).transpose(1, 2), None
        if rows is None:
            return plain(module, query, key, value, mask, **settings)
        outputs = []
        for block in zip(*(rows.unpack(each) for each in (query, key, value)), strict=True):
            mask = _causal(block[0]) if kernel == "eager" else None
            outputs.append(plain(module, *block, mask, **settings)[0])
        return rows.repack(outputs), None

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    return name


def no_mask(device: torch.device) -> Tensor:
    """A placeholder for `attention_mask=` with `attend=` or `rows=`; it is never read. Without it, transformers would build a
    mask of S x S for packed tokens, and first read a value for which the host waits for the GPU."""
    return torch.empty(1, 1, 1, 1, device=device)


def _causal(query: Tensor) -> Tensor:
    width = query.shape[2]
    return torch.full((width, width), -torch.inf, dtype=query.dtype, device=query.device).triu(1)
