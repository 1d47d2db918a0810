"""What is exported: a checkpoint, the settings of its run, and the base's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rl_lightning.checkpointing.checkpoints import checkpoint_step
from rl_lightning.checkpointing.model_files import is_adapter
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.environments.prompts import PromptSettings
from rl_lightning.export.base_files import base_directory, hub_name
from rl_lightning.policy import PolicyConfig
from rl_lightning.rollout import Sampling


@dataclass(frozen=True)
class Source:
    """A checkpoint and its run.

    Attributes:
        checkpoint: its directory.
        policy: the model's settings, with the checkpoint's adapter, or its model where all weights were trained.
        base: name or directory of the model that was trained.
        sampling: how completions were sampled.
        prompt: how questions become prompts.
        datasets: the tasks.
        eval_seed: selects the evaluation's problems.
        eval_num_samples: evaluation problems per task.
    """

    checkpoint: Path
    policy: PolicyConfig
    base: str
    sampling: Sampling
    prompt: PromptSettings
    datasets: Mapping[str, TaskSpec]
    eval_seed: int
    eval_num_samples: int

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.checkpoint.resolve().parent

    @property
    def step(self) -> int:
        """The checkpoint's optimizer step."""
        return checkpoint_step(self.checkpoint.resolve())

    @property
    def has_adapter(self) -> bool:
        """Whether the checkpoint is an adapter, and not a whole model."""
        return is_adapter(self.checkpoint)

    @cached_property
    def model_directory(self) -> Path:
        """The full-precision weights, with config and tokenizer: the base's, or the checkpoint itself where all were trained."""
        return base_directory(self.policy.model_name_or_path)

    @property
    def base_name(self) -> str:
        """The base's name for somebody else's machine: on the hub where it is known, else its directory."""
        if not self.has_adapter:
            return self.base
        return hub_name(self.base, self.model_directory) or str(self.model_directory)
