"""Prompts of a given length, the same for every side."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from rl_lightning.data import collate
from rl_lightning.policy.loading import load_tokenizer
from rl_lightning.tasks.stream import Prompt, TaskMixture, TaskSpec
from rl_lightning.types import Problem, PromptBatch

TASK = "chain_sum"
"""Whose problems stand beside the prompts: its scorer is asked about answers, of which random weights write none."""


def questions(count: int, shortest: int, longest: int) -> list[str]:
    """Digits, each a token of the tiny policy's tokenizer; lengths are spread evenly."""
    generator = random.Random(0)
    lengths = [shortest + (longest - shortest) * k // max(1, count - 1) for k in range(count)]
    return ["".join(generator.choices("0123456789", k=length)) for length in lengths]


def batch_of(texts: list[str]) -> PromptBatch:
    """The texts' own tokens, without a chat template."""
    tokenizer = load_tokenizer("tiny")
    problems = [Problem(TASK, index, text, {}) for index, text in enumerate(texts)]
    return collate([Prompt(p, tuple(tokenizer(p.question, add_special_tokens=False).input_ids), {}) for p in problems])


class FixedPrompts(LightningDataModule):
    """The same batch at every step.

    Args:
        job: `prompts` a step; `prompt_tokens`, the shortest and the longest.
        steps: how many.
    """

    def __init__(self, job: dict[str, Any], steps: int) -> None:
        super().__init__()
        self.mixture = TaskMixture({TASK: TaskSpec()})
        self.prompts_per_step, self.max_prompt_tokens = job["prompts"], job["prompt_tokens"][1]
        self.batches = [batch_of(questions(job["prompts"], *job["prompt_tokens"]))] * steps

    def advance(self, cursor: int, outcomes: Sequence[tuple[Problem, float]]) -> None:
        """Nothing follows from what was sampled: the prompts are made."""

    def settings(self) -> dict[str, Any]:
        return {}

    def train_dataloader(self) -> DataLoader[PromptBatch]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]
