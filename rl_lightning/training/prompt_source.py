"""The protocol of a data module that training can use; it is read from the trainer once, when a stage is set up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from rl_lightning.environments.answer_formats import AnswerFormat
from rl_lightning.scoring.scorer import Verifiers
from rl_lightning.types import Problem, PromptBatch


@runtime_checkable
class PromptSource(Protocol):
    """A stream of prompts that resumes where a checkpoint left it. Lightning fetches its batches; training calls these methods.

    Attributes:
        mixture: verifies answers to its problems.
        prompts_per_step: B, prompts per step.
        max_prompt_tokens: P, the length limit of a prompt.
        opening: what every prompt has already opened of the assistant's turn, such as "<think>"; every completion's text
            begins with it. Read when the policy is loaded.
        answer_format: how completions give their answers.
    """

    mixture: Verifiers
    prompts_per_step: int
    max_prompt_tokens: int
    opening: str
    answer_format: AnswerFormat

    def extra_prompts(self, count: int) -> PromptBatch:
        """`count` prompts outside the stream, for a step in which too few groups have reward variance."""
        ...

    def with_examples(self, prompts: PromptBatch) -> PromptBatch:
        """The same problems with worked examples before the question, for the supervised steps of `model.sft_steps`.

        Args:
            prompts: a batch of the stream.
        """
        ...

    def advance(self, cursor: int, accuracies: Sequence[tuple[Problem, float]]) -> None:
        """Record that a training step has ended.

        Args:
            cursor: the stream position after the step.
            accuracies: each sampled group's problem, and the share of its completions that are exactly right.
        """
        ...

    def settings(self) -> dict[str, Any]:
        """The settings that decide which prompts the stream yields, by name."""
        ...


def members(protocol: type) -> list[str]:
    """The names of a protocol's attributes and methods."""
    return [*protocol.__annotations__, *(name for name in vars(protocol) if not name.startswith("_"))]
