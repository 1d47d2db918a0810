"""The seam in transformers' models through which rollouts and updates bring their own attention.

Linear layers, norms and MLPs do not care how tokens are laid out, so both lay them out as it suits them, and only attention has
to know: a model's forward is given `attend=` by a rollout, which keeps keys and values itself, or `rows=` by an update, whose
tokens are packed. A model that is called without either behaves as always.
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
    """Which of S packed tokens stand where in rows, right-padded in blocks of like length.

    A token may stand in several rows (a shared prompt): its output is taken from the first, for it is the same in all, and its
    gradient is gathered from all.

    Attributes:
        blocks: each (R, W) int64, the token at each place of R rows; after a row's end any.
        token_place: (S,) int64, where each token stands first in all the blocks' places, one after another.
    """

    blocks: tuple[Tensor, ...]
    token_place: Tensor

    def spread(self, packed: Tensor) -> Iterator[Tensor]:
        """(1, heads, S, D) to (R, heads, W, D) for each block."""
        tokens = packed[0].transpose(0, 1)
        for block in self.blocks:
            yield tokens.index_select(0, block.flatten()).unflatten(0, block.shape).transpose(1, 2)

    def collect(self, outputs: Sequence[Tensor]) -> Tensor:
        """(R, W, heads, D) of each block to (1, S, heads, D)."""
        return torch.cat([out.flatten(0, 1) for out in outputs]).index_select(0, self.token_place)[None]


def seam(kernel: str) -> str:
    """The `attn_implementation` that takes `attend=` or `rows=`, and otherwise is `kernel`.

    Args:
        kernel: a transformers attention implementation. Rows are right-padded, so that a causal one needs no mask.
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
        for block in zip(*(rows.spread(each) for each in (query, key, value)), strict=True):
            mask = _causal(block[0]) if kernel == "eager" else None
            outputs.append(plain(module, *block, mask, **settings)[0])
        return rows.collect(outputs), None

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
    return name


def no_mask(device: torch.device) -> Tensor:
    """The `attention_mask=` that goes with `attend=` or `rows=`: made by hand and never read. Of packed tokens transformers would
    otherwise make one of S x S places, after a look at a value that makes the host wait for the GPU."""
    return torch.empty(1, 1, 1, 1, device=device)


def _causal(query: Tensor) -> Tensor:
    width = query.shape[2]
    return torch.full((width, width), -torch.inf, dtype=query.dtype, device=query.device).triu(1)
