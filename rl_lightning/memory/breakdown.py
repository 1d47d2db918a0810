"""The plain data of a memory plan: the shape of a step, the planned settings, the model, and bytes by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rl_lightning.memory.device import Device
from rl_lightning.memory.shapes import ModelShape

Part = Literal[
    "weights",
    "rounded copy",
    "reference",
    "gradients",
    "base",
    "merged copy",
    "adapter",
    "optimizer",
    "cache",
    "activations",
    "logits",
    "workspace",
    "graphs",
    "context",
    "slack",
]
"""The first four are there where all weights are trained, the next three where adapters are."""

Phase = Literal["load", "rollout", "update"]
MemoryBreakdown = dict[Part, float]
"""Bytes by part, at one point in time."""


@dataclass(frozen=True)
class StepShape:
    """The largest shape of a training step.

    Attributes:
        prompts: B, prompts per step.
        group: G, completions per prompt.
        prompt_tokens: P, tokens of the longest prompt.
        new_tokens: T, tokens of the longest completion.
        filtered: whether sampling uses top-p, top-k or min-p, which sort the vocabulary.
    """

    prompts: int
    group: int
    prompt_tokens: int
    new_tokens: int
    filtered: bool = False

    @property
    def rows(self) -> int:
        """N, completions per step; more decode slots than these would stay empty."""
        return self.prompts * self.group


@dataclass(frozen=True)
class PlannedSettings:
    """The settings that a plan chooses where the config says `auto`.

    Attributes:
        token_budget: tokens of a micro-batch.
        max_rollout_rows: sequences that decode at once.
        checkpointing: whether activations are recomputed in the backward pass.
        merged: whether rollouts run on a dense, merged copy.
        graphs: sizes of decode steps that are captured as CUDA graphs, at most.
        keep_graphs: whether these are kept from one rollout to the next, and with them the cache.
    """

    token_budget: int
    max_rollout_rows: int
    checkpointing: bool
    merged: bool
    graphs: int = 0
    keep_graphs: bool = False


@dataclass(frozen=True)
class HeldModel:
    """A model as it is held in memory.

    Attributes:
        shape: the model's shape.
        bytes_per_element: bytes of a number in the compute dtype: 2, or 4 for float32.
        quantized: whether the linear layers are in 4 bits.
        rank: LoRA's rank; 0: no adapters, all weights are trained.
        measures_kl: whether the loss needs the reference model's log-probs.
        trains_entropy: whether the loss has an entropy bonus.
        reference: whether a frozen copy of what is trained is held as it was at the start, as the KL term's reference.
    """

    shape: ModelShape
    bytes_per_element: int
    quantized: bool
    rank: int
    reference: bool = False
    measures_kl: bool = False
    trains_entropy: bool = False

    @property
    def trains_all(self) -> bool:
        """Whether all weights are trained, and there are no adapters."""
        return self.rank == 0


@dataclass(frozen=True)
class RolloutMemory:
    """The memory that a rollout engine needs besides the model, its adapters and their optimizer.

    Attributes:
        resident: memory that is also held during the update.
        peaks: additional memory at each point of a rollout that may need the most.
    """

    resident: MemoryBreakdown
    peaks: Sequence[MemoryBreakdown]


class EngineMemory(Protocol):
    """The part of a rollout engine that planning uses."""

    def memory(self, model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device) -> RolloutMemory:
        """The memory that the engine needs for steps of this shape; nothing is loaded."""
        ...


def together(*parts: MemoryBreakdown) -> MemoryBreakdown:
    """The sum of several breakdowns, by part."""
    total: MemoryBreakdown = {}
    for breakdown in parts:
        for part, size in breakdown.items():
            total[part] = total.get(part, 0.0) + size
    return total
