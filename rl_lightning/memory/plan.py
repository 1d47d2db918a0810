"""Choose the largest settings that fit in a device's memory, and predict peak memory by phase and part.

    model shape x step shape x settings -> bytes by phase and part (`predict`)
    device -> settings (`make_plan`)

A plan depends on the configuration and on the memory that is free at the start, so a run that is resumed while other programs use
the device may get smaller settings, which change results by rounding only, and a sampled token where rounding decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from rl_lightning.memory.breakdown import (
    EngineMemory,
    HeldModel,
    MemoryBreakdown,
    Phase,
    PlannedSettings,
    StepShape,
)
from rl_lightning.memory.cards import Card, predict_cards
from rl_lightning.memory.device import Device
from rl_lightning.memory.shapes import model_shape
from rl_lightning.policy.attention_kernels import planned_kernel
from rl_lightning.policy.config import PolicyConfig, compute_dtype
from rl_lightning.policy.loading import quantization_config
from rl_lightning.policy.microbatch import PADDED_SLOTS_PER_TOKEN
from rl_lightning.types import require

MAX_ROWS = 256
"""Sequences that decode at once with `auto`, at most: more hardly reduce the time per token."""

MAX_TOKENS = {"cuda": 8192, "cpu": 2048}
"""Tokens of a micro-batch with `auto`, at most: more do not use the device better."""

MAX_GRAPHS = 16
"""Sizes of decode steps that are captured as CUDA graphs, at most."""

ENOUGH_TOKENS = 2048
"""With fewer tokens in a micro-batch, dequantising 4-bit weights takes a noticeable share of the time, so `auto` turns gradient
checkpointing on before it goes below."""

_ROWS_STEP = 8


@dataclass(frozen=True)
class Plan:
    """A memory plan: settings, and the memory that they are predicted to need.

    Attributes:
        name, model, step, settings, device: what the prediction is for.
        cards: what each card holds, in the order of the layers; one, unless these are divided among several.
    """

    name: str
    model: HeldModel
    step: StepShape
    settings: PlannedSettings
    device: Device
    cards: Sequence[Card]

    @property
    def fullest(self) -> Card:
        """The card with the highest peak."""
        return max(self.cards, key=lambda card: card.peak)

    @property
    def phases(self) -> dict[Phase, MemoryBreakdown]:
        """Bytes by part at the peak of each phase, on the fullest card."""
        return self.fullest.phases

    @property
    def peak(self) -> float:
        """Bytes at the peak of the run, on the fullest card."""
        return self.fullest.peak

    def layer_devices(self, devices: Sequence[torch.device]) -> list[torch.device] | None:
        """The device of each decoder layer, where the cards are these devices; None where there is one."""
        if len(devices) == 1:
            return None
        counts = [card.model.shape.layers for card in self.cards]
        return [device for device, count in zip(devices, counts, strict=True) for _ in range(count)]

    def apply(self, config: PolicyConfig) -> PolicyConfig:
        """The configuration with the plan's choices in place of `auto`."""
        return replace(
            config,
            gradient_checkpointing="on" if self.settings.checkpointing else "off",
            rollout_weights="merged" if self.settings.merged else "unmerged",
        )

    @property
    def fits(self) -> bool:
        """Whether the peak fits in the memory of each card."""
        return self.peak <= self.device.bytes


def make_plan(
    config: PolicyConfig,
    step: StepShape,
    token_budget: int | Literal["auto"],
    rows: int | Literal["auto"],
    device: Device,
    engine: EngineMemory,
    measures_kl: bool = False,
    trains_entropy: bool = False,
) -> Plan:
    """Predict the memory of a run, and choose the settings that are `auto` so that it fits.

    Rows and tokens do not compete for memory, because rollout and update alternate. No gradient checkpointing is preferred if at
    least `ENOUGH_TOKENS` fit without it. On a GPU a merged copy is chosen if it costs neither checkpointing, nor these tokens,
    nor rows that the step can use; on a CPU if it fits. CUDA graphs get what is left.

    Args:
        config: the model's settings.
        step: the shape of a step.
        token_budget: tokens of a micro-batch, or auto.
        rows: sequences that decode at once, or auto.
        device: the device to plan for.
        engine: the rollout engine.
        measures_kl: whether the loss needs the reference model.
        trains_entropy: whether the loss has an entropy bonus.

    Returns:
        the plan; if nothing fits, that of the smallest settings.

    Raises:
        UserError: the model's config cannot be read, or its weights are stored quantised and cannot be loaded as configured; or
            there are more cards than layers.
    """
    choices = [config.rollout_weights == "merged"]
    if config.rollout_weights == "auto":
        choices = [True, False] if config.lora_r else [True]  # without adapters there is nothing to merge
    model = replace(_held(config, device, measures_kl), trains_entropy=trains_entropy)
    plans = [_largest_that_fits(config, model, step, token_budget, rows, each, device, engine) for each in choices]
    if len(plans) == 2 and not (plans[0].fits and (device.kind == "cpu" or _costs_nothing(*plans))):
        return _with_graphs(plans[1], engine)
    return _with_graphs(plans[0], engine)


def _with_graphs(plan: Plan, engine: EngineMemory) -> Plan:
    """The plan with as many CUDA graphs as fit into what its other settings leave: all of them kept with their cache, which is then
    there in the update too, or else as many as there is room for in a rollout. Without a GPU, or with several, there are none."""
    if plan.device.kind == "cuda" and plan.device.cards == 1:
        for kept, count in [(True, MAX_GRAPHS), *((False, count) for count in range(MAX_GRAPHS, 0, -1))]:
            settings = replace(plan.settings, graphs=count, keep_graphs=kept)
            cards = predict_cards(plan.model, plan.step, settings, plan.device, engine)
            with_graphs = replace(plan, settings=settings, cards=cards)
            if with_graphs.fits:
                return with_graphs
    return plan


def _costs_nothing(merged: Plan, trained: Plan) -> bool:
    """Whether the merged copy leaves enough memory for the other settings."""
    enough = min(_enough_tokens(merged.step), trained.settings.token_budget)
    return (
        merged.settings.checkpointing == trained.settings.checkpointing
        and merged.settings.token_budget >= enough
        and merged.settings.max_rollout_rows >= min(trained.settings.max_rollout_rows, merged.step.rows)
    )


def _held(config: PolicyConfig, device: Device, measures_kl: bool) -> HeldModel:
    dtype = compute_dtype(config, torch.device(device.kind))
    targets = None if config.lora_target_modules is None else tuple(config.lora_target_modules)
    shape, base = model_shape(config.model_name_or_path, targets)
    allowed = f"at most {shape.layers}, the number of decoder layers"
    require("policy.devices_per_replica", device.cards, device.cards <= shape.layers, allowed)
    alone = device.cards == 1 or config.lora_r > 0
    require("policy.devices_per_replica", device.cards, alone, "1 where lora_r is 0, which trains all weights")
    quantization_config(config, base, dtype)  # refuses what cannot be loaded
    reference = config.reference == "adapter" or (config.lora_r == 0 and measures_kl)
    if device.kind == "cuda" and shape.fused_attention:
        kernel = planned_kernel(shape.heads, shape.kv_heads, shape.head_width, dtype, device.there)
        shape = replace(shape, fused_attention=kernel != "scores", repeats_keys=kernel == "repeated")
    return HeldModel(shape, dtype.itemsize, config.quantization == "nf4", config.lora_r, reference, measures_kl)


def _largest_that_fits(
    config: PolicyConfig,
    model: HeldModel,
    step: StepShape,
    token_budget: int | Literal["auto"],
    rows: int | Literal["auto"],
    merged: bool,
    device: Device,
    engine: EngineMemory,
) -> Plan:
    """The plan of the largest settings that fit, or else of the smallest."""
    all_rows = list(_descending(min(MAX_ROWS, step.rows), _ROWS_STEP, 1)) if rows == "auto" else [rows]
    all_tokens = _token_budgets(step, MAX_TOKENS[device.kind]) if token_budget == "auto" else [token_budget]
    setting = config.gradient_checkpointing
    recompute = [False, True] if setting == "auto" else [setting == "on"]

    def fits(settings: PlannedSettings, *phases: Phase) -> bool:
        cards = predict_cards(model, step, settings, device, engine)
        return all(sum(card.phases[phase].values()) <= device.bytes for card in cards for phase in phases)

    def first_that_fits(candidates: list[PlannedSettings], *phases: Phase) -> PlannedSettings:
        return next((each for each in candidates if fits(each, *phases)), candidates[-1])

    candidates = [
        PlannedSettings(tokens, 1, on, merged)
        for on in recompute
        for tokens in all_tokens
        if on is recompute[-1] or tokens >= min(_enough_tokens(step), all_tokens[0])
    ]
    update = first_that_fits(candidates, "update")
    # More rows move layers from card to card, so the update must still fit, if it does at all.
    phases: list[Phase] = ["rollout", "update"] if fits(update, "update") else ["rollout"]
    settings = first_that_fits([replace(update, max_rollout_rows=count) for count in all_rows], *phases)
    cards = predict_cards(model, step, settings, device, engine)
    return Plan(config.model_name_or_path, model, step, settings, device, cards)


def _token_budgets(step: StepShape, limit: int) -> list[int]:
    """Candidate token budgets, largest first: those that completions of full length fill, by whole groups, then by rows of one
    group.

    With any other budget, part of it would stay unused if all completions reach the length limit, but be counted in the prediction.

    Args:
        step: the shape of a step.
        limit: the largest budget, unless a single row needs more.
    """

    def needed(rows: int) -> int:
        """The budget for `rows` rows that share a prompt; see `pack`."""
        longest = step.prompt_tokens + step.new_tokens
        return max(
            step.prompt_tokens + rows * step.new_tokens, math.ceil(rows * longest / PADDED_SLOTS_PER_TOKEN), longest
        )

    groups = [count * needed(step.group) for count in range(step.prompts, 0, -1)]
    budgets = [*groups, *(needed(rows) for rows in range(step.group - 1, 0, -1))]
    return [budget for budget in budgets if budget <= limit] or budgets[-1:]


def _enough_tokens(step: StepShape) -> int:
    return max(ENOUGH_TOKENS, step.prompt_tokens + step.new_tokens)


def _descending(start: int, step: int, end: int) -> Iterator[int]:
    yield from range(start, end, -step)
    yield end
