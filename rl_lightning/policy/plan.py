"""Does it fit? Peak memory by part and phase, and the largest settings that a card has room for.

    shape x work x settings -> bytes by phase and part (`predict`)
    card -> the settings (`make_plan`)

It is a function of the configuration and the card's total memory alone, so a resumed run gets what it had.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import psutil
import torch

from rl_lightning.policy import memory
from rl_lightning.policy.loading import PolicyConfig, compute_dtype
from rl_lightning.policy.shapes import ModelShape, model_shape
from rl_lightning.types import require

Part = Literal[
    "base", "merged copy", "adapter", "optimizer", "cache", "activations", "logits", "workspace", "context", "slack"
]
Phase = Literal["load", "rollout", "update"]
Moment = dict[Part, float]
"""Bytes by part at one moment."""

MOST_ROWS = 256
"""Sequences that `auto` lets decode at once: more make a token hardly cheaper."""

MOST_TOKENS = {"cuda": 16384, "cpu": 8192}
"""Tokens a micro-batch that `auto` goes up to: more keep the device no busier."""

ENOUGH_TOKENS = 2048
"""With fewer tokens a micro-batch, unpacking 4-bit weights takes a share of the time that one would notice: `auto` turns
checkpointing on before it goes below."""

_TOKENS_STEP, _ROWS_STEP = 256, 8


@dataclass(frozen=True)
class Card:
    """Where it runs.

    Attributes:
        name: for people.
        kind: "cuda" or "cpu".
        bytes: all its memory; under `torch.cuda.set_per_process_memory_fraction` that share of it.
    """

    name: str
    kind: str
    bytes: float


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


@dataclass(frozen=True)
class Plan:
    """A prediction.

    Attributes:
        model, work, settings, card: what it is for.
        phases: bytes by part at the moment of each phase that needs most.
    """

    model: Model
    work: Work
    settings: Settings
    card: Card
    phases: dict[Phase, Moment]

    @property
    def peak(self) -> float:
        """Bytes."""
        return max(sum(parts.values()) for parts in self.phases.values())

    @property
    def fits(self) -> bool:
        """Whether the card has that much."""
        return self.peak <= self.card.bytes


def make_plan(
    config: PolicyConfig, work: Work, token_budget: int | Literal["auto"], rows: int | Literal["auto"], card: Card
) -> Plan:
    """Predict, and where the configuration says `auto` choose what the card has room for.

    Rows and tokens do not compete, for rollout and update take turns. Without checkpointing is preferred wherever at least
    `ENOUGH_TOKENS` fit so; a merged copy on a GPU wherever it costs neither that, nor those, nor rows that the step can use.

    Args:
        config: the model.
        work: what a step asks for.
        token_budget: see `Settings`.
        rows: of the rollout, see `Settings`.
        card: where it runs.

    Returns:
        the plan; one that does not fit has the smallest settings.
    """
    unit = 4 if compute_dtype(config, torch.device(card.kind)) == torch.float32 else 2
    model = Model(model_shape(config.model_name_or_path), unit, config.quantization == "nf4", config.lora_r)
    merged = [config.rollout_weights == "merged"]
    if config.rollout_weights == "auto":
        merged = [True, False]
    plans = [_largest(model, work, config.gradient_checkpointing, token_budget, rows, each, card) for each in merged]
    if len(plans) == 2 and not (plans[0].fits and (card.kind == "cpu" or _loses_nothing(*plans))):
        return plans[1]
    return plans[0]


def _loses_nothing(merged: Plan, trained: Plan) -> bool:
    enough = min(_enough(merged.work), trained.settings.token_budget)
    return (
        merged.settings.checkpointing == trained.settings.checkpointing
        and merged.settings.token_budget >= enough
        and merged.settings.max_rollout_rows >= min(trained.settings.max_rollout_rows, slots_used(merged.work))
    )


def _largest(
    model: Model,
    work: Work,
    checkpointing: Literal["auto", "on", "off"],
    token_budget: int | Literal["auto"],
    rows: int | Literal["auto"],
    merged: bool,
    card: Card,
) -> Plan:
    """The largest settings that fit, or the smallest."""
    all_rows = list(_downwards(MOST_ROWS, _ROWS_STEP, 1)) if rows == "auto" else [rows]
    longest = work.prompt_tokens + work.new_tokens
    most = max(MOST_TOKENS[card.kind], longest)
    all_tokens = list(_downwards(most, _TOKENS_STEP, longest)) if token_budget == "auto" else [token_budget]
    recompute = [False, True] if checkpointing == "auto" else [checkpointing == "on"]

    def fitting(phase: Phase, settings: list[Settings]) -> Settings:
        for each in settings:
            if sum(predict(model, work, each, card)[phase].values()) <= card.bytes:
                return each
        return settings[-1]

    tried = [
        Settings(tokens, 1, on, merged)
        for on in recompute
        for tokens in all_tokens
        if token_budget != "auto" or on is recompute[-1] or tokens >= _enough(work)
    ]
    update = fitting("update", tried)
    settings = fitting("rollout", [replace(update, max_rollout_rows=count) for count in all_rows])
    return Plan(model, work, settings, card, predict(model, work, settings, card))


def _enough(work: Work) -> int:
    return max(ENOUGH_TOKENS, work.prompt_tokens + work.new_tokens)


def _downwards(most: int, step: int, least: int) -> Iterator[int]:
    yield from range(most, least, -step)
    yield least


def slots_used(work: Work) -> int:
    """N, the rows of a step: more slots than these stay empty."""
    return work.prompts * work.group


def predict(model: Model, work: Work, settings: Settings, card: Card) -> dict[Phase, Moment]:
    """Bytes by part at the moment of each phase that needs most.

    Args:
        model: as it is held.
        work: what a step asks for.
        settings: with these.
        card: decides what a process needs before its first tensor.
    """
    moments: dict[Phase, list[Moment]] = {
        "load": [_loading(model)],
        "rollout": [_prefilling(model, work, settings), _decoding(model, work, settings)],
        "update": [_at_the_head(model, work, settings), _in_the_layers(model, work, settings)],
    }
    context = memory.CUDA_CONTEXT if card.kind == "cuda" else memory.CPU_CONTEXT
    most = {phase: max(each, key=lambda parts: sum(parts.values())) for phase, each in moments.items()}
    return {phase: _with_margin(parts, context) for phase, parts in most.items()}


def _with_margin(parts: Moment, context: float) -> Moment:
    comes_and_goes = sum(parts.get(part, 0) for part in ("cache", "activations", "logits", "workspace"))
    return {**parts, "context": context, "slack": memory.SLACK * comes_and_goes}


def _loading(model: Model) -> Moment:
    workspace = memory.largest_dense(model.shape, model.unit) if model.quantized else 0.0
    return {"base": memory.base(model.shape, model.unit, model.quantized), "workspace": workspace}


def _resting(model: Model, settings: Settings) -> Moment:
    """What is there from the first update to the end."""
    weights = memory.adapter(model.shape, model.rank)
    parts: Moment = {
        "base": memory.base(model.shape, model.unit, model.quantized),
        "adapter": weights,
        "optimizer": 2 * weights,
    }
    return {**parts, "merged copy": memory.merged_copy(model.shape, model.unit)} if settings.merged else parts


def _prefilling(model: Model, work: Work, settings: Settings) -> Moment:
    tokens = work.prompts * work.prompt_tokens
    at_once = min(tokens, max(memory.PREFILL_TOKENS, work.prompt_tokens))
    return {
        **_resting(model, settings),
        "cache": memory.cache(model.shape, model.unit, tokens),
        "activations": memory.prefill(model.shape, model.unit, at_once),
        "workspace": _rollout_workspace(model, settings),
    }


def _decoding(model: Model, work: Work, settings: Settings) -> Moment:
    slots = min(settings.max_rollout_rows, slots_used(work))
    length = work.prompt_tokens + work.new_tokens + memory.OVERRUN_TOKENS
    tokens = slots * length + work.prompts * work.prompt_tokens
    return {
        **_resting(model, settings),
        "cache": memory.cache(model.shape, model.unit, tokens),
        "logits": memory.draws(model.shape, model.unit, slots, work.filtered),
        "workspace": _rollout_workspace(model, settings),
    }


def _rollout_workspace(model: Model, settings: Settings) -> float:
    """The fused copy of the adapters and one unpacked layer; a merged copy needs neither but while it is refreshed."""
    unpacked = memory.largest_dense(model.shape, model.unit)
    return unpacked if settings.merged else unpacked + memory.adapter_copy(model.shape, model.rank, model.unit)


def _update(model: Model, work: Work, settings: Settings) -> tuple[Moment, int, float]:
    """What both moments of the update have in common; its tokens; bytes a token saved of one layer."""
    in_all = work.prompts * (work.prompt_tokens + work.group * work.new_tokens)
    tokens = min(max(settings.token_budget, work.prompt_tokens + work.new_tokens), in_all)
    recast = model.unit == 2 and not model.quantized
    saved = memory.saved_a_layer(model.shape, model.unit, model.rank, recast)
    parts = _resting(model, settings)
    parts["optimizer"] += memory.adapter(model.shape, model.rank)  # the gradient
    copies = memory.adapter_copy(model.shape, model.rank, model.unit) if model.unit == 2 else 0.0
    parts["workspace"] = copies + (memory.largest_dense(model.shape, model.unit) if model.quantized else 0.0)
    parts["activations"] = memory.kept_for_backward(saved, model.shape, model.unit, tokens, settings.checkpointing)
    return parts, tokens, saved


def _at_the_head(model: Model, work: Work, settings: Settings) -> Moment:
    parts, tokens, _ = _update(model, work, settings)
    parts["activations"] += memory.head(model.shape, model.unit, tokens)
    return {**parts, "logits": memory.logits(model.shape, tokens)}


def _in_the_layers(model: Model, work: Work, settings: Settings) -> Moment:
    parts, tokens, saved = _update(model, work, settings)
    parts["activations"] += memory.backward_of_a_layer(saved, model.shape, model.unit, tokens, settings.checkpointing)
    return parts


def card_of_size(gigabytes: float) -> Card:
    """A GPU that is not here.

    Args:
        gigabytes: 10^9 bytes; what is sold as an 8 GB card has a little more than 8 of these.

    Raises:
        UserError: not above 0.
    """
    require("vram", gigabytes, gigabytes > 0, "above 0, in GB")
    return Card(f"a GPU with {gigabytes:g} GB", "cuda", gigabytes * 1e9)


def card_of(device: torch.device) -> Card:
    """The GPU, or the computer's memory."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        share = torch.cuda.get_per_process_memory_fraction(device)
        return Card(properties.name, "cuda", properties.total_memory * share)
    return Card("this computer's CPU", "cpu", psutil.virtual_memory().total)
