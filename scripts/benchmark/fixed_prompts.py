"""A data module whose prompts are generated before the clock starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from rl_lightning.environments.answer_formats import answer_format
from rl_lightning.environments.mixture import EnvironmentMixture
from rl_lightning.types import Problem, PromptBatch


class FixedPrompts(LightningDataModule):
    """Gives the same batches in every run.

    Args:
        mixture: verifies answers to their problems.
        batches: one batch per step, all of the same size.
    """

    def __init__(self, mixture: EnvironmentMixture, batches: Sequence[PromptBatch]) -> None:
        super().__init__()
        self.mixture, self.batches = mixture, batches
        self.prompts_per_step = len(batches[0])
        self.max_prompt_tokens = max(int(batch.prompt_lengths.max()) for batch in batches)
        self.opening, self.answer_format = "", answer_format("tags")

    def extra_prompts(self, count: int) -> PromptBatch:
        """There are none: every group has reward variance."""
        raise NotImplementedError("the benchmark's prompts are fixed; leave model.sampling.max_resample at 1")

    def with_examples(self, prompts: PromptBatch) -> PromptBatch:
        """There are none: the benchmark has no supervised steps."""
        raise NotImplementedError("the benchmark's prompts are fixed; leave model.sft_steps at 0")

    def advance(self, cursor: int, accuracies: Sequence[tuple[Problem, float]]) -> None:
        """Does nothing: the prompts are fixed and do not depend on what was sampled."""

    def settings(self) -> dict[str, Any]:
        return {}

    def train_dataloader(self) -> DataLoader[PromptBatch]:
        return DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]
