"""Pack rows of unequal length into micro-batches without padding.

The tokens of a micro-batch follow one another, with each prompt once for the completions that share it, and what several prompts
have in common from the start once for all of them. Nearly all the work is in linear layers, which treat every token alike. Only
attention must know which tokens belong together: it gathers whole rows, prompt and completion, into padded blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from rl_lightning.policy.attention import Rows
from rl_lightning.policy.prefixes import common_prefixes, distinct_tokens, pack_prompts
from rl_lightning.types import Rollout

PADDED_SLOTS_PER_TOKEN = 2
"""Attention works on whole rows, each with its own copy of the shared prompt. A micro-batch of several rows has at most this many
padded slots per token of the budget."""


@dataclass(frozen=True)
class MicroBatch:
    """S packed tokens of R rows, which predict M completion tokens.

    The last token of a completion predicts nothing and is left out. A prompt, and the beginning of several prompts, is forwarded
    once for all rows that share it here.

    Example: prompts [p q] and [p s], G = 2. Rows 0 and 1 answer the first, with completions [a b c] and [d e]; row 2 answers the
    second, with [f g]. Then R = 3, S = 7, M = 7:

        index       0 1 2 3 4 5 6      packed: both prompts, then the completions without their last tokens
        input_ids   p q s a b d f
        positions   0 1 1 2 3 2 2
        rows        [p q a b], [p q d], [p s f]
        targets     a b c d e f g
        predicting  1 3 4 1 5 2 6      q predicts a and d, the first tokens of rows 0 and 1
        row_of      0 0 0 1 1 2 2
        column_of   0 1 2 0 1 0 1

    Attributes:
        input_ids: (S,) int64, the packed tokens.
        positions: (S,) int64, the position of each token in its row.
        rows: the arrangement of the S tokens in the R rows of attention, prompt first.
        predicting: (M,) int64, index of the packed token that predicts each target.
        targets: (M,) int64, the completion tokens.
        row_of: (M,) int64, the rollout row of each target.
        column_of: (M,) int64, the position of each target in its completion.
    """

    input_ids: Tensor
    positions: Tensor
    rows: Rows
    predicting: Tensor
    targets: Tensor
    row_of: Tensor
    column_of: Tensor


def pack(rollout: Rollout, rows: Tensor, token_budget: int) -> list[MicroBatch]:
    """Pack the chosen rows, group by group, into micro-batches of at most `token_budget` tokens, and twice as many padded slots.

    Args:
        rollout: the rollout of the whole step.
        rows: (K,) int64, the rows to pack, in ascending order, on the rollout's device.
        token_budget: tokens of a micro-batch; a longer row gets its own micro-batch.

    Returns:
        the micro-batches, on the same device; each of the K rows is in exactly one. The rows of a micro-batch are in packing
        order, which its `row_of` gives.
    """
    prompts, completions = rollout.prompt_lengths.tolist(), (rollout.lengths - 1).tolist()
    common = common_prefixes(rollout.prompt_ids, rollout.prompt_lengths)
    split = _split(rows.tolist(), rollout.group_size, prompts, completions, common.tolist(), token_budget)
    return [_assemble(rollout, torch.tensor(members, device=rows.device), common) for members in split]


def _split(
    rows: list[int], group: int, prompts: list[int], completions: list[int], common: list[list[int]], budget: int
) -> Iterator[list[int]]:
    """The rows of each micro-batch. Groups are packed longest first, so that rows of similar length share a micro-batch, and are
    kept together where they fit."""
    groups = [list(members) for _, members in groupby(rows, key=lambda row: row // group)]
    groups.sort(key=lambda members: -max(completions[row] for row in members) - prompts[members[0] // group])

    def fits(members: list[int]) -> bool:
        prompt_tokens = distinct_tokens(list({row // group for row in members}), prompts, common)
        completion_tokens = sum(completions[row] for row in members)
        lengths = sorted((prompts[row // group] + completions[row] for row in members), reverse=True)
        slots = sum(lengths[first] * (end - first) for first, end in _length_buckets(lengths))
        return prompt_tokens + completion_tokens <= budget and slots <= PADDED_SLOTS_PER_TOKEN * budget

    current: list[int] = []
    for members in groups:
        for rows_together in [members] if fits(members) else [[row] for row in members]:
            if current and not fits(current + rows_together):
                yield current
                current = []
            current = current + rows_together
    if current:
        yield current


def _assemble(rollout: Rollout, rows: Tensor, common: Tensor) -> MicroBatch:
    device = rows.device
    row_index = torch.arange(len(rows), device=device)
    prompts, group = torch.unique(rows // rollout.group_size, return_inverse=True)
    prompt_lengths, lengths = rollout.prompt_lengths[prompts], rollout.lengths[rows]
    # Tokens are packed one after another: first the prompts, then the completions (`inner`: without their last tokens).
    packed = pack_prompts(rollout.prompt_ids[prompts], prompt_lengths, common[prompts][:, prompts])
    mask = rollout.mask[rows, : int(lengths.max())]
    inner = mask.clone()
    inner[row_index, lengths - 1] = False
    completion_ids = rollout.completion_ids[rows, : mask.shape[1]]
    inner_offset = len(packed.ids) + (lengths - 1).cumsum(0) - (lengths - 1)
    # Position w of a row is token w of its prompt up to the prompt's length, then a token of its completion.
    row_lengths = prompt_lengths[group] + lengths - 1
    position = torch.arange(int(row_lengths.max()), device=device)
    inner_index = position - prompt_lengths[group, None]
    in_prompt = packed.tokens[group[:, None], position.clamp(max=packed.tokens.shape[1] - 1)]
    row_tokens = torch.where(inner_index < 0, in_prompt, inner_offset[:, None] + inner_index)
    row_tokens = torch.where(position < row_lengths[:, None], row_tokens, 0)
    blocks, row_slot = _blocks(row_tokens, row_lengths)
    inner_row, inner_column = inner.nonzero(as_tuple=True)
    inner_position = prompt_lengths[group[inner_row]] + inner_column
    first_row = torch.full_like(prompts, len(rows)).scatter_reduce_(0, group, row_index, "amin")
    token_row = torch.cat([first_row[packed.prompt], inner_row])
    positions = torch.cat([packed.positions, inner_position])
    row, column = mask.nonzero(as_tuple=True)
    return MicroBatch(
        input_ids=torch.cat([packed.ids, completion_ids[inner]]),
        positions=positions,
        rows=Rows(blocks, row_slot[token_row] + positions),
        predicting=row_tokens[row, prompt_lengths[group[row]] + column - 1],
        targets=completion_ids[mask],
        row_of=rows[row],
        column_of=column,
    )


def _blocks(row_tokens: Tensor, row_lengths: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """The tokens of rows in blocks of similar length; and (R,) the first slot of each row."""
    order = row_lengths.argsort(descending=True, stable=True)
    lengths = row_lengths[order].tolist()
    row_slot = torch.empty_like(row_lengths)
    blocks: list[Tensor] = []
    slots = 0
    for first, end in _length_buckets(lengths):
        width, members = lengths[first], order[first:end]
        blocks.append(row_tokens[members, :width])
        row_slot[members] = slots + width * torch.arange(len(members), device=row_slot.device)
        slots += width * len(members)
    return tuple(blocks), row_slot


def _length_buckets(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """Buckets of similar length, of lengths in descending order: the first row of each, and one more than the last.

    A row is at least three quarters as long as the longest of its bucket, so that attention's padding stays below a third.
    """
    first = 0
    while first < len(lengths):
        end = next((r for r in range(first, len(lengths)) if lengths[r] * 4 < lengths[first] * 3), len(lengths))
        yield first, end
        first = end
