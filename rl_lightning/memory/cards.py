"""Divide a model's decoder layers among several cards, so that the fullest card is as empty as possible."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rl_lightning.memory.breakdown import (
    EngineMemory,
    HeldModel,
    MemoryBreakdown,
    Phase,
    PlannedSettings,
    StepShape,
)
from rl_lightning.memory.device import Device
from rl_lightning.memory.phases import predict


@dataclass(frozen=True)
class Card:
    """What one card holds.

    Attributes:
        model: its part of the model.
        phases: bytes by part at its peak in each phase.
    """

    model: HeldModel
    phases: dict[Phase, MemoryBreakdown]

    @property
    def peak(self) -> float:
        """Bytes at the peak of the run."""
        return max(sum(parts.values()) for parts in self.phases.values())


def predict_cards(
    model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device, engine: EngineMemory
) -> list[Card]:
    """What each of `device.cards` cards holds, in the division whose fullest card is as empty as possible.

    The first card holds embedding, head and what the loss and the sampler need besides its layers, so it has fewer of them; the
    others share the rest evenly. Layers count as equal. See `predict` for the arguments; there are no more cards than layers.
    """

    def card(layers: int, first: bool) -> Card:
        part = part_of(model, layers, first)
        return Card(part, predict(part, step, settings, device, engine))

    layers, others = model.shape.layers, device.cards - 1
    if others == 0:
        return [Card(model, predict(model, step, settings, device, engine))]

    def is_fuller(on_first: int) -> bool:
        return card(on_first, True).peak >= card(-(-(layers - on_first) // others), False).peak

    choices = range(1, layers - others + 1)
    crossing = bisect_left(choices, True, key=is_fuller)  # more layers fill the first card, and empty the others
    divisions = [
        [card(on_first, True), *(card(each, False) for each in _evenly(layers - on_first, others))]
        for on_first in choices[max(0, crossing - 1) : crossing + 1]
    ]
    return min(divisions, key=lambda cards: max(each.peak for each in cards))


def part_of(model: HeldModel, layers: int, first: bool) -> HeldModel:
    """The part of a model on one card.

    Args:
        model: the whole model.
        layers: decoder layers on this card.
        first: whether the card also holds all that is outside the layers.
    """
    shape, share = model.shape, layers / model.shape.layers

    def part(total: int, outside: int = 0) -> int:
        return round((total - outside) * share) + (outside if first else 0)

    return replace(
        model,
        shape=replace(
            shape,
            layers=layers,
            vocabulary=shape.vocabulary if first else 0,
            linear_weights=part(shape.linear_weights),
            frozen_linear_weights=part(shape.frozen_linear_weights, shape.outside_linear_weights),
            other_weights=part(shape.other_weights, shape.outside_other_weights),
            lora_weights_per_rank=part(shape.lora_weights_per_rank),
            fused_lora_weights_per_rank=part(shape.fused_lora_weights_per_rank),
        ),
    )


def _evenly(layers: int, cards: int) -> Sequence[int]:
    return [layers // cards + (number < layers % cards) for number in range(cards)]
