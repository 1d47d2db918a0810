"""Cut a rollout into micro-batches: its tokens one after another, each prompt once a group, no padding.

Linear layers are nearly all the work, and to them a token is a token. Only attention must know which tokens belong together; it
gathers whole rows, prompt and completion, for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from rl_lightning.policy.attention import Rows
from rl_lightning.types import Rollout

PLACES_A_TOKEN = 2
"""Attention works on whole rows, each with the prompt that it shares: at most so many places in these, padding included, a token
of the budget, where there are several."""


@dataclass(frozen=True)
class MicroBatch:
    """S tokens in all, of R rows with M completion tokens.

    A completion's last token predicts nothing and is left out. The prompt is forwarded once for the rows that share it here.

    Attributes:
        input_ids: (S,) int64.
        positions: (S,) int64, each token's place in its row.
        rows: which of the S tokens stand where in the R rows, prompt first.
        predicting: (M,) int64, the token that predicts each target.
        targets: (M,) int64.
        row_of: (M,) int64, the rollout row of each target.
        column_of: (M,) int64, the place of each target in its completion.
    """

    input_ids: Tensor
    positions: Tensor
    rows: Rows
    predicting: Tensor
    targets: Tensor
    row_of: Tensor
    column_of: Tensor


def cut(rollout: Rollout, rows: Tensor, token_budget: int) -> list[MicroBatch]:
    """Cut the chosen rows, group by group, into micro-batches of at most `token_budget` tokens and twice as many places in
    the rows of attention.

    Args:
        rollout: the whole step's rollout.
        rows: (K,) int64, the rows that take part.
        token_budget: tokens; a prompt with one completion that is longer than that makes a micro-batch of its own.
    """
    prompts, completions = rollout.prompt_lengths.tolist(), (rollout.lengths - 1).tolist()
    return [
        _assemble(rollout, torch.tensor(part, device=rows.device))
        for part in _parts(rows.tolist(), rollout.group_size, prompts, completions, token_budget)
    ]


def _parts(rows: list[int], group: int, prompts: list[int], completions: list[int], budget: int) -> Iterator[list[int]]:
    """Rows of each micro-batch. Groups come longest first and stay together where they can, so that rows of like length meet."""
    groups = [list(members) for _, members in groupby(rows, key=lambda row: row // group)]
    groups.sort(key=lambda members: -max(completions[row] for row in members) - prompts[members[0] // group])

    def fits(part: list[int]) -> bool:
        read = sum(prompts[owner] for owner in {row // group for row in part})
        written = sum(completions[row] for row in part)
        lengths = sorted((prompts[row // group] + completions[row] for row in part), reverse=True)
        places = sum(lengths[first] * (last - first) for first, last in _alike(lengths))
        return read + written <= budget and places <= PLACES_A_TOKEN * budget

    part: list[int] = []
    for members in groups:
        for rows_together in [members] if fits(members) else [[row] for row in members]:
            if part and not fits(part + rows_together):
                yield part
                part = []
            part = part + rows_together
    if part:
        yield part


def _assemble(rollout: Rollout, rows: Tensor) -> MicroBatch:
    device = rows.device
    numbers = torch.arange(len(rows), device=device)
    owners, group = torch.unique(rows // rollout.group_size, return_inverse=True)
    starts, lengths = rollout.prompt_lengths[owners], rollout.lengths[rows]
    # All tokens one after another: first the prompts, then the completions without their last tokens.
    prompt_mask = torch.arange(int(starts.max()), device=device) < starts[:, None]
    mask = rollout.mask[rows, : int(lengths.max())]
    inner = mask.clone()
    inner[numbers, lengths - 1] = False
    prompt_ids = rollout.prompt_ids[owners, : prompt_mask.shape[1]][prompt_mask]
    completion_ids = rollout.completion_ids[rows, : mask.shape[1]]
    prompt_at = starts.cumsum(0) - starts
    inner_at = len(prompt_ids) + (lengths - 1).cumsum(0) - (lengths - 1)
    # Place w of a row is token w of its prompt while that lasts, then of its completion.
    row_lengths = starts[group] + lengths - 1
    place = torch.arange(int(row_lengths.max()), device=device)
    past = place - starts[group, None]
    row_tokens = torch.where(past < 0, prompt_at[group, None] + place, inner_at[:, None] + past)
    row_tokens = torch.where(place < row_lengths[:, None], row_tokens, 0)
    blocks, row_at = _blocks(row_tokens, row_lengths)
    owner, prompt_place = prompt_mask.nonzero(as_tuple=True)
    inner_row, inner_column = inner.nonzero(as_tuple=True)
    inner_place = starts[group[inner_row]] + inner_column
    first_row = torch.full_like(owners, len(rows)).scatter_reduce_(0, group, numbers, "amin")
    token_row, positions = torch.cat([first_row[owner], inner_row]), torch.cat([prompt_place, inner_place])
    row, column = mask.nonzero(as_tuple=True)
    return MicroBatch(
        input_ids=torch.cat([prompt_ids, completion_ids[inner]]),
        positions=positions,
        rows=Rows(blocks, row_at[token_row] + positions),
        predicting=row_tokens[row, starts[group[row]] + column - 1],
        targets=completion_ids[mask],
        row_of=rows[row],
        column_of=column,
    )


def _blocks(row_tokens: Tensor, row_lengths: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Rows of like length together; and (R,) where each row begins."""
    order = row_lengths.argsort(descending=True, stable=True)
    lengths = row_lengths[order].tolist()
    row_at = torch.empty_like(row_lengths)
    blocks: list[Tensor] = []
    at = 0
    for first, last in _alike(lengths):
        width, members = lengths[first], order[first:last]
        blocks.append(row_tokens[members, :width])
        row_at[members] = at + width * torch.arange(len(members), device=row_at.device)
        at += width * len(members)
    return tuple(blocks), row_at


def _alike(lengths: list[int]) -> Iterator[tuple[int, int]]:
    """From the longest down, cut so that attention's padding stays below a third: first row and one more than the last."""
    first = 0
    while first < len(lengths):
        last = next((r for r in range(first, len(lengths)) if lengths[r] * 4 < lengths[first] * 3), len(lengths))
        yield first, last
        first = last
