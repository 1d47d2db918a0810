"""The plain data that travels from room to room.

B prompts a step, G completions a prompt, N = B * G rows, P prompt and T completion tokens. Row n answers prompt n // G.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


class UserError(Exception):
    """A mistake of the user's: the message is one line that says what, where, and what is allowed."""


def require(where: str, value: object, allowed: bool, range_: str) -> None:
    """Refuse a setting that is out of range.

    Args:
        where: the setting's name in a config.
        value: what it is.
        allowed: whether that is in range.
        range_: the range, in words that follow "it must be".

    Raises:
        UserError: it is not.
    """
    if not allowed:
        raise UserError(f"{where}: {value!r} is not allowed; it must be {range_}")


@dataclass(frozen=True)
class Problem:
    """One reasoning-gym problem.

    Attributes:
        task: the reasoning-gym task's name.
        index: the problem's number in its stream.
        question: what the model is asked, without any prompt template.
        entry: reasoning-gym's whole item; the scorer needs it.
        level: of its task's ladder, 0 the easiest; None where it was made by the task's own config.
    """

    task: str
    index: int
    question: str
    entry: dict[str, Any] = field(repr=False)
    level: int | None = None


@dataclass(frozen=True)
class PromptBatch:
    """B prompts, ready for the model.

    Attributes:
        problems: the B problems.
        prompt_ids: (B, P) int64, right-padded.
        prompt_lengths: (B,) int64, tokens of each prompt.
        cursor: the stream position after this batch; a resumed run starts there.
        skipped: how many candidate problems were passed over on the way, by reason.
    """

    problems: tuple[Problem, ...]
    prompt_ids: Tensor
    prompt_lengths: Tensor
    cursor: int
    skipped: dict[str, int] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> PromptBatch:
        """The same batch with its tensors on `device`; Lightning calls this."""
        return replace(self, prompt_ids=self.prompt_ids.to(device), prompt_lengths=self.prompt_lengths.to(device))


@dataclass(frozen=True)
class Rollout:
    """N sampled completions.

    Attributes:
        prompt_ids: (B, P) int64, right-padded.
        prompt_lengths: (B,) int64.
        completion_ids: (N, T) int64, right-padded.
        mask: (N, T) bool, true up to and including the end token.
        sampling_logps: (N, T) float32, the log-prob of each token under the distribution that it was drawn from; 0 where masked.
        finished: (N,) bool, whether the completion ended by itself (false: cut off at the length limit).
        texts: N decoded completions without end token or padding.
    """

    prompt_ids: Tensor
    prompt_lengths: Tensor
    completion_ids: Tensor
    mask: Tensor
    sampling_logps: Tensor
    finished: Tensor
    texts: tuple[str, ...]

    @property
    def group_size(self) -> int:
        """G, completions a prompt."""
        return self.completion_ids.shape[0] // self.prompt_ids.shape[0]

    @property
    def lengths(self) -> Tensor:
        """(N,) int64, completion tokens including the end token."""
        return self.mask.sum(dim=1)


@dataclass(frozen=True)
class Score:
    """What a completion is worth, before the reward weighs it.

    Attributes:
        exact: 1.0 where the task's scorer gives full marks, else 0.0.
        partial: the scorer's own value in [0, 1].
        well_formed: whether the completion is one think section followed by one answer.
        answer: the extracted answer, None where there is none.
        failure: why nothing was earned ("no_answer", "scorer_raised:ValueError", "not_finite"), None where it was scored.
    """

    exact: float
    partial: float
    well_formed: bool
    answer: str | None
    failure: str | None = None


@dataclass(frozen=True)
class LossOutput:
    """A scalar loss whose gradient may be accumulated, and sums for the log.

    Attributes:
        loss: scalar; micro-batch losses of one step add up to the step's loss.
        metrics: detached scalars, already weighted so that they too add up over micro-batches.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
