"""Predict the peak memory of each phase (load, rollout, update) from the parts in `arithmetic`."""

from __future__ import annotations

from dataclasses import replace

from rl_lightning.memory import arithmetic
from rl_lightning.memory.breakdown import (
    EngineMemory,
    HeldModel,
    MemoryBreakdown,
    Phase,
    PlannedSettings,
    StepShape,
    together,
)
from rl_lightning.memory.device import Device
from rl_lightning.policy.microbatch import PADDED_SLOTS_PER_TOKEN


def predict(
    model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device, engine: EngineMemory
) -> dict[Phase, MemoryBreakdown]:
    """Bytes by part at the peak of each phase.

    Args:
        model: the model.
        step: the shape of a step.
        settings: the settings to predict for.
        device: where it runs; it determines what a process needs before its first tensor.
        engine: the rollout engine.
    """
    rollout = engine.memory(model, step, settings, device)
    resident = together(_trained(model), rollout.resident)
    candidates: dict[Phase, list[MemoryBreakdown]] = {
        "load": [_loading(model)],
        "rollout": [together(resident, peak) for peak in rollout.peaks],
        "update": [together(resident, peak) for peak in _updating(model, step, settings)],
    }
    context = arithmetic.CUDA_CONTEXT if device.kind == "cuda" else arithmetic.CPU_CONTEXT
    peaks = {phase: max(each, key=lambda parts: sum(parts.values())) for phase, each in candidates.items()}
    return {phase: _with_overhead(parts, context) for phase, parts in peaks.items()}


def _with_overhead(parts: MemoryBreakdown, context: float) -> MemoryBreakdown:
    temporary = sum(parts.get(part, 0) for part in ("cache", "activations", "logits", "workspace"))
    return {**parts, "context": context, "slack": arithmetic.SLACK * temporary}


def _loading(model: HeldModel) -> MemoryBreakdown:
    if model.trains_all:
        return _all_weights(model)
    base = arithmetic.base(model.shape, model.bytes_per_element, model.quantized)
    return {"base": base, "workspace": dequantised_layer(model)}


def _trained(model: HeldModel) -> MemoryBreakdown:
    """Memory held from the first update to the end of the run, with any rollout engine."""
    if model.trains_all:
        return {**_all_weights(model), "optimizer": 8 * model.shape.text_weights}
    weights = arithmetic.adapter(model.shape, model.rank)
    base = arithmetic.base(model.shape, model.bytes_per_element, model.quantized)
    return {"base": base, "adapter": weights * (1 + model.reference), "optimizer": 2 * weights}


def _all_weights(model: HeldModel) -> MemoryBreakdown:
    weights, rounded = arithmetic.all_weights(model.shape, model.bytes_per_element)
    reference = model.bytes_per_element * model.shape.text_weights if model.reference else 0.0
    parts: MemoryBreakdown = {"weights": weights, "rounded copy": rounded, "reference": reference}
    return {part: size for part, size in parts.items() if size}


def dequantised_layer(model: HeldModel) -> float:
    """Bytes of the largest 4-bit layer dequantised, for a product of many rows."""
    return arithmetic.largest_dense(model.shape, model.bytes_per_element) if model.quantized else 0.0


def _updating(model: HeldModel, step: StepShape, settings: PlannedSettings) -> list[MemoryBreakdown]:
    """The candidates for the peak of the update: at the output head, and in the backward pass of a layer and of its attention."""
    shape, size = model.shape, model.bytes_per_element
    longest = step.prompt_tokens + step.new_tokens
    budget = max(settings.token_budget, longest)
    tokens = min(budget, step.prompts * step.prompt_tokens + step.rows * step.new_tokens)
    slots = min(PADDED_SLOTS_PER_TOKEN * budget, step.rows * longest)
    saved = arithmetic.saved_per_layer(shape, size, model.rank, tokens, slots)
    kept = arithmetic.kept_for_backward(saved, shape, size, tokens, settings.checkpointing)
    at_head = kept + arithmetic.head(shape, size, tokens, model.terms.entropy)
    in_backward = kept + arithmetic.backward_of_layer(saved, shape, size, tokens, settings.checkpointing)
    # By then what the layer had saved after its attention is freed.
    before = arithmetic.saved_per_layer(replace(shape, norms=1, mlp_width=0), size, model.rank, tokens, slots)
    freed = 0 if settings.checkpointing else saved
    in_attention = kept - freed + before + arithmetic.scores(shape, slots, longest, backward=True)
    logits = arithmetic.logits(shape, size, tokens, model.terms.entropy)
    of_reference = arithmetic.reference_forward(shape, size, tokens, slots) if model.terms.kl else 0.0
    in_reference = kept + max(of_reference, arithmetic.scores(shape, slots, longest, backward=False))
    if not model.trains_all:
        parts: MemoryBreakdown = {
            "optimizer": arithmetic.adapter(shape, model.rank),
            "workspace": dequantised_layer(model),
        }
        return [
            {**parts, "activations": at_head, "logits": logits},
            {**parts, "activations": in_backward},
            {**parts, "activations": in_attention},
            {**parts, "activations": in_reference},
        ]
    plain = arithmetic.logits(shape, size, tokens, trains_entropy=False)
    gradients: MemoryBreakdown = {"gradients": 4 * shape.text_weights}
    summing, rounding, waiting, of_embedding = arithmetic.vocabulary_gradients(shape, size)
    waiting += size * shape.largest_linear
    return [
        {**gradients, "activations": at_head, "logits": logits},
        # The head's gradient comes in the backward pass, whose tile is the same with an entropy bonus.
        {**gradients, "activations": at_head, "logits": plain, "workspace": summing},
        {**gradients, "activations": at_head, "workspace": rounding},
        {**gradients, "activations": in_backward, "workspace": waiting},
        {**gradients, "activations": in_attention, "workspace": waiting},
        {**gradients, "activations": in_reference},
        {**gradients, "workspace": of_embedding},
    ]
