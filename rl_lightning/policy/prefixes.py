"""Pack prompts so that what they have in common from the start is packed once.

The same token after the same tokens has the same hidden state, keys and values, in whichever prompt it is. So prompts that begin
with the same system prompt and worked examples share the tokens of these. A shared token belongs to the first prompt that has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

COMPARED_TOKENS = 2**22
"""Pairs of tokens that are compared at once, a few bytes each, unless one prompt has more."""


@dataclass(frozen=True)
class PackedPrompts:
    """S distinct tokens of B prompts; two tokens are the same if their ids are, and those of all tokens before them.

    Example: prompts [p q r], [p q] and [p s].

        index       0 1 2 3
        ids         p q r s
        positions   0 1 2 1
        prompt      0 0 0 2
        tokens      [0 1 2], [0 1 -], [0 3 -]

    Attributes:
        ids: (S,) int64, the packed tokens, ordered by prompt and position.
        positions: (S,) int64, the position of each in its prompt.
        prompt: (S,) int64, the first prompt that has it.
        tokens: (B, P) int64, the packed index of each prompt's tokens; 0 after the end of a prompt.
    """

    ids: Tensor
    positions: Tensor
    prompt: Tensor
    tokens: Tensor


def common_prefixes(ids: Tensor, lengths: Tensor) -> Tensor:
    """The number of tokens that each two prompts have in common from the start.

    Args:
        ids: (B, P) int64, right-padded.
        lengths: (B,) int64, tokens of each prompt.

    Returns:
        (B, B) int64, symmetric; a prompt has all its tokens in common with itself.
    """
    first_difference = []
    for some in ids.split(max(1, COMPARED_TOKENS // ids.numel())):
        differ = F.pad(some[:, None] != ids, (0, 1), value=True)  # the end is a difference too
        first_difference.append(differ.view(torch.uint8).argmax(dim=2))  # the first of the largest values
    return torch.minimum(torch.cat(first_difference), torch.minimum(lengths[:, None], lengths))


def pack_prompts(ids: Tensor, lengths: Tensor, common: Tensor) -> PackedPrompts:
    """Pack B prompts, with what several have in common from the start once.

    Args:
        ids: (B, P) int64, right-padded.
        lengths: (B,) int64, tokens of each prompt.
        common: (B, B) int64, their `common_prefixes`.
    """
    position = torch.arange(ids.shape[1], device=ids.device)
    # The most tokens that a prompt has in common with any of the first ones, itself included from its own column on.
    with_first = common.cummax(dim=1).values
    shared = F.pad(with_first, (1, 0)).diagonal()  # with those before it
    owned = (position >= shared[:, None]) & (position < lengths[:, None])
    prompt, positions = owned.nonzero(as_tuple=True)
    # A token at position w belongs to the first prompt with more than w tokens in common.
    owner = torch.searchsorted(with_first, position.expand_as(ids).contiguous(), right=True).clamp(max=len(ids) - 1)
    own = lengths - shared
    offset = own.cumsum(0) - own - shared
    tokens = torch.where(position < lengths[:, None], offset[owner] + position, 0)
    return PackedPrompts(ids[prompt, positions], positions, prompt, tokens)


def distinct_tokens(prompts: list[int], lengths: list[int], common: list[list[int]]) -> int:
    """The number of tokens that `pack_prompts` packs of some of the prompts.

    Args:
        prompts: the chosen prompts, each once, in any order.
        lengths: tokens of each of the B prompts.
        common: the B rows of their `common_prefixes`.
    """
    return sum(
        lengths[prompt] - max((common[prompt][before] for before in prompts[:number]), default=0)
        for number, prompt in enumerate(prompts)
    )
