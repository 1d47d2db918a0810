"""Divide the work of a step among the ranks, and combine their results.

Sampling is divided: each rank samples and scores every W-th prompt. Then all ranks gather the groups of the whole step, and
compute advantages, token weights, curriculum and metrics from the same data. The update is divided again, by whole groups, and
its gradients are summed once. So the number of ranks changes results by rounding only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from rl_lightning.distributed.collective import Collective
from rl_lightning.types import Rollout, TrainerLogprobs

BUCKET = 2**26
"""Gradients that are summed over the ranks at once, 268 MB in float32: a small part of a large model's."""


def share_of_prompts(collective: Collective) -> slice:
    """The prompts of a step that this rank samples: every W-th."""
    return slice(collective.rank, None, collective.world_size)


def share_of_groups(rollout: Rollout, rows: Tensor, collective: Collective) -> Tensor:
    """The rows of a step that this rank trains on: whole groups, assigned longest first to the rank with the fewest tokens so
    far.

    Args:
        rollout: the rollout of the whole step.
        rows: (K,) int64, the rows that the loss depends on, in ascending order.
        collective: the ranks.

    Returns:
        (K',) int64, this rank's share of `rows`, in ascending order.
    """
    if collective.world_size == 1:
        return rows
    groups, lengths = rows // rollout.group_size, rollout.lengths[rows]
    tokens = {int(group): int(lengths[groups == group].sum()) for group in groups.unique()}
    load, mine = [0] * collective.world_size, set()
    for group in sorted(tokens, key=lambda group: (-tokens[group], group)):
        rank = load.index(min(load))
        load[rank] += tokens[group]
        if rank == collective.rank:
            mine.add(group)
    return rows[torch.tensor([int(group) in mine for group in groups], dtype=torch.bool, device=rows.device)]


def sum_gradients(parameters: Sequence[nn.Parameter], collective: Collective) -> bool:
    """Sum the gradients over all ranks, in few operations of bounded size, including ranks that have none.

    Args:
        parameters: the trained parameters; a missing gradient counts as zero, unless no rank has any gradient.
        collective: the ranks.

    Returns:
        whether any rank has a gradient.
    """
    if not collective.any(any(p.grad is not None for p in parameters)):
        return False
    if collective.world_size > 1:  # a single rank has nothing to sum, and need not copy its gradients
        device = parameters[0].device  # layers may be on several
        for bucket in _buckets(parameters):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            summed = collective.sum(torch.cat([gradient.flatten().to(device) for gradient in gradients]))
            totals = summed.split([p.numel() for p in bucket])
            for parameter, gradient, total in zip(bucket, gradients, totals, strict=True):
                parameter.grad = gradient.copy_(total.view_as(gradient))
    return True


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Divide parameters, in their order, into lists of at most `BUCKET` numbers each, or of one parameter that has more."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if bucket and size + parameter.numel() > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.numel()
    yield bucket


def fill_missing(values: Tensor, collective: Collective) -> Tensor:
    """The values of all rows, each of which one rank at most has computed and the others left NaN.

    Args:
        values: (N, T) float, of the whole step; NaN in the rows of other ranks.
        collective: the ranks.

    Returns:
        (N, T), the same on every rank; NaN where no rank has a value.
    """
    if collective.world_size == 1:
        return values
    known = ~values.isnan()
    total, ranks = collective.sum(torch.where(known, values, 0.0)), collective.sum(known.to(torch.uint8))
    return torch.where(ranks > 0, total, torch.nan)


def logprobs_of_all(logprobs: TrainerLogprobs, collective: Collective) -> TrainerLogprobs:
    """The log-probs and entropies of the whole step, of which each rank has forwarded some rows."""
    return TrainerLogprobs(*(fill_missing(each, collective) for each in (logprobs.logps, logprobs.entropies)))
