"""Cut a rollout into micro-batches of like length, so that little of the card is spent on padding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rl_lightning.types import Rollout


@dataclass(frozen=True)
class MicroBatch:
    """R rows of prompt + completion, L tokens wide, with M completion tokens in all.

    Attributes:
        rows: (R,) int64, the rows of the rollout.
        input_ids: (R, L) int64, right-padded, so that causal attention needs no mask.
        predicts: (R, L) bool, true where the next token is a completion token: these M positions reach the head.
        targets: (M,) int64, those next tokens.
        row_of: (M,) int64, the rollout row of each target.
        column_of: (M,) int64, the place of each target in its completion.
    """

    rows: Tensor
    input_ids: Tensor
    predicts: Tensor
    targets: Tensor
    row_of: Tensor
    column_of: Tensor


def cut(rollout: Rollout, rows: Tensor, token_budget: int) -> list[MicroBatch]:
    """Cut the chosen rows, longest first, so that rows x longest row of a micro-batch is at most `token_budget`.

    Args:
        rollout: the whole step's rollout.
        rows: (K,) int64, the rows that take part.
        token_budget: tokens, padding included; a row longer than that makes a micro-batch of its own.
    """
    lengths = rollout.prompt_lengths[rows // rollout.group_size] + rollout.lengths[rows]
    order = lengths.argsort(descending=True, stable=True)
    batches, first = [], 0
    while first < len(rows):
        count = max(1, token_budget // int(lengths[order[first]]))
        batches.append(_assemble(rollout, rows[order[first : first + count]]))
        first += count
    return batches


def _assemble(rollout: Rollout, rows: Tensor) -> MicroBatch:
    prompts = rows // rollout.group_size
    starts, lengths = rollout.prompt_lengths[prompts], rollout.lengths[rows]
    ids = torch.cat([rollout.prompt_ids[prompts], torch.zeros_like(rollout.completion_ids[rows])], dim=1)
    place, mask = torch.arange(rollout.completion_ids.shape[1], device=rows.device), rollout.mask[rows]
    row, column = mask.nonzero(as_tuple=True)
    ids[row, starts[row] + place[column]] = rollout.completion_ids[rows][mask]
    ids = ids[:, : int((starts + lengths).max())]
    ids = ids * (torch.arange(ids.shape[1], device=ids.device) < (starts + lengths)[:, None])
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    predicts[row, starts[row] + column - 1] = True
    return MicroBatch(rows, ids, predicts, rollout.completion_ids[rows][mask], rows[row], column)
