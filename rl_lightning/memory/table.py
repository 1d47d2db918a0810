"""Format a memory plan as a table."""

from __future__ import annotations

from typing import get_args

from rl_lightning.memory.breakdown import Part
from rl_lightning.memory.cards import Card
from rl_lightning.memory.plan import Plan


def table(plan: Plan) -> str:
    """The plan as text: GB by part and phase, whether it fits, and the settings."""
    parts = [part for part in get_args(Part) if any(part in breakdown for breakdown in plan.phases.values())]
    width = max(len(part) for part in parts)
    lines = [f"Predicted memory of {plan.name} on {plan.device.name}, GB"]
    lines.append(" " * (width + 2) + "".join(f"{phase:>9}" for phase in plan.phases))
    for part in parts:
        cells = "".join(f"{breakdown.get(part, 0) / 1e9:9.2f}" for breakdown in plan.phases.values())
        lines.append(f"  {part:<{width}}{cells}")
    verdict = "fits" if plan.fits else f"does not fit, by {(plan.peak - plan.device.bytes) / 1e9:.2f} GB"
    lines.append(f"  {'in total':<{width}}{_sums(plan.fullest)}   of {plan.device.bytes / 1e9:.2f}: {verdict}")
    if len(plan.cards) > 1:
        lines[0] += "; the parts are the fullest card's"
        for number, card in enumerate(plan.cards):
            holds = f"{card.model.shape.layers} layers" + (", embedding and head" if number == 0 else "")
            lines.append(f"  {f'card {number}':<{width}}{_sums(card)}   {holds}")
    step, settings = plan.step, plan.settings
    lines.append(
        f"  {step.prompts} x {step.group} completions of up to {step.new_tokens} tokens after prompts of up to {step.prompt_tokens}"
    )
    lines.append(
        f"  token_budget: {settings.token_budget}, sampling.max_rollout_rows: {settings.max_rollout_rows}, "
        f"policy.gradient_checkpointing: {'on' if settings.checkpointing else 'off'}"
        + ("" if plan.model.trains_all else f", policy.rollout_weights: {'merged' if settings.merged else 'unmerged'}")
    )
    if plan.model.shape.repeats_keys:
        lines.append(
            "  attention: keys and values repeated for every query head, because no fused kernel takes them shared"
        )
    if plan.device.kind == "cuda":
        kept = ", kept from rollout to rollout with the cache" if settings.keep_graphs else ""
        lines.append(f"  CUDA graphs of decode steps: {settings.graphs or 'none'}{kept}")
    return "\n".join(lines)


def _sums(card: Card) -> str:
    return "".join(f"{sum(parts.values()) / 1e9:9.2f}" for parts in card.phases.values())
