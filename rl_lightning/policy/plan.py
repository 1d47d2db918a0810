"""Does it fit? Peak memory by part and phase, and the largest settings that a card has room for.

    shape x work x settings -> bytes by phase and part (`predict`)
    card -> the settings (`make_plan`)

It depends on the configuration and on what memory is free at the start, so a run that is resumed beside others on the card may
get smaller settings, which change results by rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import psutil
import torch

from rl_lightning.policy import memory
from rl_lightning.policy.loading import PolicyConfig, compute_dtype
from rl_lightning.policy.microbatch import PLACES_A_TOKEN
from rl_lightning.policy.phases import (
    Model,
    Moment,
    Part,
    Phase,
    Settings,
    Work,
    predict,
    slot_tokens,
    tokens_read_together,
)
from rl_lightning.policy.shapes import model_shape
from rl_lightning.rollout import Sampling
from rl_lightning.types import require

MOST_ROWS = 256
"""Sequences that `auto` lets decode at once: more make a token hardly cheaper."""

MOST_TOKENS = {"cuda": 8192, "cpu": 2048}
"""Tokens a micro-batch that `auto` goes up to: more keep the device no busier."""

ENOUGH_TOKENS = 2048
"""With fewer tokens a micro-batch, unpacking 4-bit weights takes a share of the time that one would notice: `auto` turns
checkpointing on before it goes below."""

_ROWS_STEP = 8


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
class Plan:
    """A prediction.

    Attributes:
        name, model, work, settings, card: what it is for.
        phases: bytes by part at the moment of each phase that needs most.
    """

    name: str
    model: Model
    work: Work
    settings: Settings
    card: Card
    phases: dict[Phase, Moment]

    @property
    def eval_rows(self) -> int:
        """Rows that an evaluation decodes at once: fewer than a rollout, for it reads further prompts meanwhile."""
        shape, unit, work = self.model.shape, self.model.unit, self.work
        rows = min(self.settings.max_rollout_rows, work.rows)
        a_row = memory.cache(shape, unit, slot_tokens(work, 1)) + memory.draws(shape, unit, 1, work.filtered)
        return max(1, rows - math.ceil(memory.prefill(shape, unit, tokens_read_together(work)) / a_row))

    @property
    def peak(self) -> float:
        """Bytes."""
        return max(sum(parts.values()) for parts in self.phases.values())

    def apply(self, config: PolicyConfig) -> PolicyConfig:
        """The configuration with what the plan has decided."""
        return replace(
            config,
            gradient_checkpointing="on" if self.settings.checkpointing else "off",
            rollout_weights="merged" if self.settings.merged else "trained",
        )

    @property
    def fits(self) -> bool:
        """Whether the card has that much."""
        return self.peak <= self.card.bytes


def step_work(sampling: Sampling, prompts: int, prompt_tokens: int) -> Work:
    """What a training step asks for.

    Args:
        sampling: how completions are drawn.
        prompts: a step.
        prompt_tokens: the longest prompt.
    """
    filtered = sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0
    return Work(prompts, sampling.num_generations, prompt_tokens, sampling.max_new_tokens, filtered)


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
    merged = [config.rollout_weights == "merged"]
    if config.rollout_weights == "auto":
        merged = [True, False]
    plans = [_largest(config, work, token_budget, rows, each, card) for each in merged]
    if len(plans) == 2 and not (plans[0].fits and (card.kind == "cpu" or _loses_nothing(*plans))):
        return plans[1]
    return plans[0]


def _loses_nothing(merged: Plan, trained: Plan) -> bool:
    enough = min(_enough(merged.work), trained.settings.token_budget)
    return (
        merged.settings.checkpointing == trained.settings.checkpointing
        and merged.settings.token_budget >= enough
        and merged.settings.max_rollout_rows >= min(trained.settings.max_rollout_rows, merged.work.rows)
    )


def _largest(
    config: PolicyConfig,
    work: Work,
    token_budget: int | Literal["auto"],
    rows: int | Literal["auto"],
    merged: bool,
    card: Card,
) -> Plan:
    """The largest settings that fit, or the smallest."""
    unit = 4 if compute_dtype(config, torch.device(card.kind)) == torch.float32 else 2
    model = Model(model_shape(config.model_name_or_path), unit, config.quantization == "nf4", config.lora_r)
    all_rows = list(_downwards(min(MOST_ROWS, work.rows), _ROWS_STEP, 1)) if rows == "auto" else [rows]
    all_tokens = _filled(work, MOST_TOKENS[card.kind]) if token_budget == "auto" else [token_budget]
    asked = config.gradient_checkpointing
    recompute = [False, True] if asked == "auto" else [asked == "on"]

    def fitting(phase: Phase, settings: list[Settings]) -> Settings:
        for each in settings:
            if sum(predict(model, work, each, card.kind)[phase].values()) <= card.bytes:
                return each
        return settings[-1]

    tried = [
        Settings(tokens, 1, on, merged)
        for on in recompute
        for tokens in all_tokens
        if on is recompute[-1] or tokens >= min(_enough(work), all_tokens[0])
    ]
    update = fitting("update", tried)
    settings = fitting("rollout", [replace(update, max_rollout_rows=count) for count in all_rows])
    return Plan(config.model_name_or_path, model, work, settings, card, predict(model, work, settings, card.kind))


def _filled(work: Work, most: int) -> list[int]:
    """Token budgets that completions of full length fill, from the largest down: those of whole groups, then of rows of one group.
    With another budget the rest would stay empty where all run to the limit, and be predicted all the same.

    Args:
        work: what a step asks for.
        most: no larger ones, unless a single row needs more.
    """

    def needed(rows: int) -> int:
        """By rows that share a prompt; see `cut`."""
        longest = work.prompt_tokens + work.new_tokens
        return max(work.prompt_tokens + rows * work.new_tokens, math.ceil(rows * longest / PLACES_A_TOKEN), longest)

    groups = [count * needed(work.group) for count in range(work.prompts, 0, -1)]
    budgets = [*groups, *(needed(rows) for rows in range(work.group - 1, 0, -1))]
    return [budget for budget in budgets if budget <= most] or budgets[-1:]


def _enough(work: Work) -> int:
    return max(ENOUGH_TOKENS, work.prompt_tokens + work.new_tokens)


def _downwards(most: int, step: int, least: int) -> Iterator[int]:
    yield from range(most, least, -step)
    yield least


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
    """The GPU, as far as it is free, or the computer's memory."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        allowed = properties.total_memory * torch.cuda.get_per_process_memory_fraction(device)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) + memory.CUDA_CONTEXT
        return Card(properties.name, "cuda", min(allowed, free))
    return Card("this computer", "cpu", psutil.virtual_memory().total)


def table(plan: Plan) -> str:
    """The plan for people: GB by part and phase, and the settings."""
    parts = [part for part in get_args(Part) if any(part in moment for moment in plan.phases.values())]
    width = max(len(part) for part in parts)
    lines = [f"Predicted memory of {plan.name} on {plan.card.name}, GB"]
    lines.append(" " * (width + 2) + "".join(f"{phase:>9}" for phase in plan.phases))
    for part in parts:
        cells = "".join(f"{moment.get(part, 0) / 1e9:9.2f}" for moment in plan.phases.values())
        lines.append(f"  {part:<{width}}{cells}")
    sums = "".join(f"{sum(moment.values()) / 1e9:9.2f}" for moment in plan.phases.values())
    verdict = "fits" if plan.fits else f"does not fit, by {(plan.peak - plan.card.bytes) / 1e9:.2f} GB"
    lines.append(f"  {'in all':<{width}}{sums}   of {plan.card.bytes / 1e9:.2f}: {verdict}")
    work, settings = plan.work, plan.settings
    lines.append(
        f"  {work.prompts} x {work.group} completions of up to {work.new_tokens} tokens after prompts of up to {work.prompt_tokens}"
    )
    lines.append(
        f"  token_budget: {settings.token_budget}, sampling.max_rollout_rows: {settings.max_rollout_rows}, "
        f"policy.gradient_checkpointing: {'on' if settings.checkpointing else 'off'}, "
        f"policy.rollout_weights: {'merged' if settings.merged else 'trained'}"
    )
    return "\n".join(lines)
