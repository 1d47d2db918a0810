"""Join the rollout batches of several rounds of sampling, or of several ranks, into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.types import PromptBatch, Rollout, RolloutBatch


def append(first: RolloutBatch, more: RolloutBatch) -> RolloutBatch:
    """The groups of `first`, then those of `more`. The cursor stays that of `first`, because extra prompts are outside the
    stream."""
    skipped = Counter(first.prompts.skipped) + Counter(more.prompts.skipped)
    return _join([first, more], torch.arange(len(first) + len(more)), skipped)


def interleave(shares: Sequence[RolloutBatch]) -> RolloutBatch:
    """Join the shares of W ranks in the order of the prompts, where rank r sampled prompts r, r + W, r + 2 W, …"""
    if len(shares) == 1:
        return shares[0]
    prompt_index = torch.cat([torch.arange(len(share)) * len(shares) + rank for rank, share in enumerate(shares)])
    # Every rank has counted the skipped problems of the whole step, so those of one rank are kept.
    return _join(shares, prompt_index.argsort(), shares[0].prompts.skipped)


def _join(parts: Sequence[RolloutBatch], order: Tensor, skipped: Mapping[str, int]) -> RolloutBatch:
    """Concatenate all groups, and permute them by `order` (B,)."""
    order = order.to(parts[0].rewards.device)
    size = parts[0].rollout.group_size
    rows = (order[:, None] * size + torch.arange(size, device=order.device)).flatten()
    scores = [score for part in parts for score in part.scores]
    return RolloutBatch(
        _join_prompts([part.prompts for part in parts], order, skipped),
        _join_rollouts([part.rollout for part in parts], order, rows),
        tuple(scores[row] for row in rows.tolist()),
        *(
            torch.cat([getattr(part, name) for part in parts])[order]
            for name in ("reward_components", "rewards", "kept")
        ),
    )


def _join_prompts(parts: Sequence[PromptBatch], order: Tensor, skipped: Mapping[str, int]) -> PromptBatch:
    problems = [problem for part in parts for problem in part.problems]
    return PromptBatch(
        tuple(problems[index] for index in order.tolist()),
        _pad_and_cat([part.prompt_ids for part in parts])[order],
        torch.cat([part.prompt_lengths for part in parts])[order],
        parts[0].cursor,
        dict(skipped),
    )


def _join_rollouts(parts: Sequence[Rollout], order: Tensor, rows: Tensor) -> Rollout:
    texts = [text for part in parts for text in part.texts]
    return Rollout(
        prompt_ids=_pad_and_cat([part.prompt_ids for part in parts])[order],
        prompt_lengths=torch.cat([part.prompt_lengths for part in parts])[order],
        completion_ids=_pad_and_cat([part.completion_ids for part in parts])[rows],
        mask=_pad_and_cat([part.mask for part in parts])[rows],
        sampling_logps=_pad_and_cat([part.sampling_logps for part in parts])[rows],
        finished=torch.cat([part.finished for part in parts])[rows],
        texts=tuple(texts[row] for row in rows.tolist()),
    )


def _pad_and_cat(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate rows of different widths, the shorter ones right-padded with zeros."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, width - part.shape[1])) for part in parts])
