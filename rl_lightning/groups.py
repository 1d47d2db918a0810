"""Groups of answers, sampled in one or several goes, and which of them a step is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rl_lightning.types import Problem, PromptBatch, Rollout, Score


@dataclass(frozen=True)
class Groups:
    """B prompts, G answers to each, and what these earned.

    Attributes:
        batch: B prompts.
        rollout: N = B * G completions.
        scores: N scores.
        parts: (B, G, R) float64, the R parts of each reward, not weighed.
        rewards: (B, G) float64, their weighted sums.
        kept: (B,) bool, the groups that the step is made of.
    """

    batch: PromptBatch
    rollout: Rollout
    scores: tuple[Score, ...]
    parts: Tensor
    rewards: Tensor
    kept: Tensor

    def __len__(self) -> int:
        return len(self.batch.problems)

    def __add__(self, more: Groups) -> Groups:
        return Groups(
            _joined_batch(self.batch, more.batch),
            _joined_rollout(self.rollout, more.rollout),
            self.scores + more.scores,
            *(torch.cat([getattr(self, name), getattr(more, name)]) for name in ("parts", "rewards", "kept")),
        )

    def outcomes(self) -> list[tuple[Problem, float]]:
        """Of each group its problem and the share of its answers that are right."""
        size = self.rollout.group_size
        rights = [sum(s.exact for s in self.scores[i : i + size]) / size for i in range(0, len(self.scores), size)]
        return list(zip(self.batch.problems, rights, strict=True))


def chosen(live: Tensor, count: int) -> Tensor:
    """Which groups a step is made of: those that teach before those that do not, and of equals those that came first.

    Args:
        live: (B,) bool, whether a group has something to teach.
        count: how many are wanted.

    Returns:
        (B,) bool.
    """
    order = torch.argsort(live.int(), descending=True, stable=True)
    return torch.zeros_like(live).scatter(0, order[:count], True)


def _joined_batch(a: PromptBatch, b: PromptBatch) -> PromptBatch:
    """The stream goes on after the first one: the other is out of turn."""
    return PromptBatch(
        a.problems + b.problems,
        _stacked(a.prompt_ids, b.prompt_ids),
        torch.cat([a.prompt_lengths, b.prompt_lengths]),
        a.cursor,
        {reason: a.skipped.get(reason, 0) + b.skipped.get(reason, 0) for reason in a.skipped | b.skipped},
    )


def _joined_rollout(a: Rollout, b: Rollout) -> Rollout:
    names = ("prompt_ids", "completion_ids", "mask", "sampling_logps")
    wide = {name: _stacked(getattr(a, name), getattr(b, name)) for name in names}
    narrow = {name: torch.cat([getattr(a, name), getattr(b, name)]) for name in ("prompt_lengths", "finished")}
    return Rollout(**wide, **narrow, texts=a.texts + b.texts)


def _stacked(a: Tensor, b: Tensor) -> Tensor:
    """Rows of b under those of a, the shorter ones padded on the right."""
    width = max(a.shape[1], b.shape[1])
    return torch.cat([F.pad(part, (0, width - part.shape[1])) for part in (a, b)])
