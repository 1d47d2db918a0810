"""What is in memory at the moment of each phase that needs most: the parts of `memory`, put together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rl_lightning.policy import memory
from rl_lightning.policy.microbatch import PLACES_A_TOKEN
from rl_lightning.policy.shapes import ModelShape
from rl_lightning.rollout.cache import PREFILL_TOKENS

Part = Literal[
    "base", "merged copy", "adapter", "optimizer", "cache", "activations", "logits", "workspace", "context", "slack"
]
Phase = Literal["load", "rollout", "update"]
Moment = dict[Part, float]
"""Bytes by part at one moment."""


@dataclass(frozen=True)
class Work:
    """What a step asks for, at its longest.

    Attributes:
        prompts: B, prompts a step.
        group: G, completions a prompt.
        prompt_tokens: P, the longest prompt.
        new_tokens: T, the longest completion.
        filtered: whether top-p, top-k or min-p sort the vocabulary.
    """

    prompts: int
    group: int
    prompt_tokens: int
    new_tokens: int
    filtered: bool = False

    @property
    def rows(self) -> int:
        """N, completions a step: more slots than these stay empty."""
        return self.prompts * self.group


@dataclass(frozen=True)
class Settings:
    """What the plan decides where it is left to it.

    Attributes:
        token_budget: tokens of a micro-batch.
        max_rollout_rows: sequences that decode at once.
        checkpointing: whether activations are recomputed.
        merged: whether rollouts run on a dense copy.
    """

    token_budget: int
    max_rollout_rows: int
    checkpointing: bool
    merged: bool


@dataclass(frozen=True)
class Model:
    """A model as it is held: its shape, the bytes of a number in its compute dtype, whether it is in 4 bits, LoRA's rank."""

    shape: ModelShape
    unit: int
    quantized: bool
    rank: int


def predict(model: Model, work: Work, settings: Settings, kind: str) -> dict[Phase, Moment]:
    """Bytes by part at the moment of each phase that needs most.

    Args:
        model: as it is held.
        work: what a step asks for.
        settings: with these.
        kind: of the device, "cuda" or "cpu": what a process needs before its first tensor.
    """
    moments: dict[Phase, list[Moment]] = {
        "load": [_loading(model)],
        "rollout": [
            _refreshing(model, settings),
            _prefilling(model, work, settings),
            _decoding(model, work, settings),
        ],
        "update": _updating(model, work, settings),
    }
    context = memory.CUDA_CONTEXT if kind == "cuda" else memory.CPU_CONTEXT
    most = {phase: max(each, key=lambda parts: sum(parts.values())) for phase, each in moments.items()}
    return {phase: _with_margin(parts, context) for phase, parts in most.items()}


def _with_margin(parts: Moment, context: float) -> Moment:
    comes_and_goes = sum(parts.get(part, 0) for part in ("cache", "activations", "logits", "workspace"))
    return {**parts, "context": context, "slack": memory.SLACK * comes_and_goes}


def _loading(model: Model) -> Moment:
    workspace = memory.largest_dense(model.shape, model.unit) if model.quantized else 0.0
    return {"base": memory.base(model.shape, model.unit, model.quantized), "workspace": workspace}


def _resting(model: Model, settings: Settings) -> Moment:
    """What is there from the first update to the end; what rollouts run on stays where it is while the update goes on."""
    weights = memory.adapter(model.shape, model.rank)
    parts: Moment = {
        "base": memory.base(model.shape, model.unit, model.quantized),
        "adapter": weights,
        "optimizer": 2 * weights,
    }
    if settings.merged:
        return {**parts, "merged copy": memory.merged_copy(model.shape, model.unit)}
    return {**parts, "adapter": weights + memory.fused_adapter(model.shape, model.rank, model.unit)}


def _refreshing(model: Model, settings: Settings) -> Moment:
    """A layer of the merged copy is made: base, adapter and their sum, the last two in float32; before there is a cache."""
    making = (model.unit + 8) * model.shape.largest_linear if settings.merged else 0.0
    return {**_resting(model, settings), "workspace": making}


def _prefilling(model: Model, work: Work, settings: Settings) -> Moment:
    return {
        **_resting(model, settings),
        "cache": memory.cache(model.shape, model.unit, work.prompts * work.prompt_tokens),
        "activations": memory.prefill(model.shape, model.unit, tokens_read_together(work)),
        "workspace": _unpacked(model, settings.merged),
    }


def _decoding(model: Model, work: Work, settings: Settings) -> Moment:
    slots = min(settings.max_rollout_rows, work.rows)
    return {
        **_resting(model, settings),
        "cache": memory.cache(model.shape, model.unit, slot_tokens(work, slots) + work.prompts * work.prompt_tokens),
        "logits": memory.draws(model.shape, model.unit, slots, work.filtered),
        "workspace": _unpacked(model, settings.merged),
    }


def tokens_read_together(work: Work) -> int:
    """Of the prompts, in one forward pass."""
    return min(work.prompts * work.prompt_tokens, max(PREFILL_TOKENS, work.prompt_tokens))


def slot_tokens(work: Work, slots: int) -> int:
    """Room in the cache of so many slots."""
    return slots * (work.prompt_tokens + work.new_tokens + memory.OVERRUN_TOKENS)


def _unpacked(model: Model, merged: bool = False) -> float:
    """One layer of 4-bit weights, for a product of many rows."""
    return memory.largest_dense(model.shape, model.unit) if model.quantized and not merged else 0.0


def _updating(model: Model, work: Work, settings: Settings) -> list[Moment]:
    """At the head, and while gradients pass a layer."""
    shape, unit = model.shape, model.unit
    longest = work.prompt_tokens + work.new_tokens
    budget = max(settings.token_budget, longest)
    tokens = min(budget, work.prompts * work.prompt_tokens + work.rows * work.new_tokens)
    places = min(PLACES_A_TOKEN * budget, work.rows * longest)
    saved = memory.saved_a_layer(shape, unit, model.rank, tokens, places)
    kept = memory.kept_for_backward(saved, shape, unit, tokens, settings.checkpointing)
    parts = _resting(model, settings)
    parts["optimizer"] += memory.adapter(shape, model.rank)  # the gradient
    parts["workspace"] = _unpacked(model)
    at_head, passing = (
        memory.head(shape, unit, tokens),
        memory.backward_of_a_layer(saved, shape, unit, tokens, settings.checkpointing),
    )
    return [
        {**parts, "activations": kept + at_head, "logits": memory.logits(shape, unit, tokens)},
        {**parts, "activations": kept + passing},
    ]
