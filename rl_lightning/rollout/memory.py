"""Predict the memory of rollouts by the policy itself, from the model's shape alone, without loading weights."""

from __future__ import annotations

import math

from rl_lightning.memory import arithmetic
from rl_lightning.memory.breakdown import (
    HeldModel,
    MemoryBreakdown,
    PlannedSettings,
    RolloutMemory,
    StepShape,
    together,
)
from rl_lightning.memory.device import Device
from rl_lightning.memory.plan import Plan
from rl_lightning.memory.shapes import ModelShape
from rl_lightning.policy.products import SMALL
from rl_lightning.rollout.cache import PREFILL_TOKENS
from rl_lightning.rollout.sampling import SMALL_VOCAB

GRAPH_KERNEL_BYTES = 20_000
"""What the driver keeps on the GPU for a kernel of a CUDA graph. Not measured here: NVIDIA's cccl counts 10 KB (its pull request
3768); a user of its forum found 64 KB with a driver of CUDA 11 (thread 244901), and vLLM's issue 5517 a third of that from CUDA
12.4 on."""

KERNELS_PER_LAYER, KERNELS_PER_4_BIT_LAYER, KERNELS_OUTSIDE = 32, 75, 60
"""Kernels of a decode step, from above: by layer, on dense weights or on 4-bit ones with adapters; and of embedding, head and
choice of tokens. Counted in the code (`network`, `cache`, `sampling`, bitsandbytes), two for each matrix product."""

SYNC_MARGIN_TOKENS = 16
"""Cache positions beyond prompt and completion: a row may decode for `sync_interval` more steps before its end is noticed;
rounded to a multiple of 8."""


def rollout_memory(model: HeldModel, step: StepShape, settings: PlannedSettings, device: Device) -> RolloutMemory:
    """Resident bytes, and the peak bytes of the three phases of a rollout: weights are refreshed, prompts are prefilled,
    completions are decoded. With kept graphs what decoding allocates stays for the next rollout."""
    shape, size = model.shape, model.bytes_per_element
    slots = min(settings.max_rollout_rows, step.rows)
    prompts = step.prompts * step.prompt_tokens
    # A layer of the merged copy is computed from base, adapter and their sum, the last two in float32, before the cache exists.
    refreshing = (size + 8) * shape.largest_linear if settings.merged and not model.trains_all else 0.0
    unpacked = arithmetic.largest_dense(shape, size) if model.quantized and not settings.merged else 0.0
    prefilled = _prefilled_together(step)
    state: MemoryBreakdown = {
        "cache": cache(shape, size, _slot_tokens(step, slots)),
        "logits": token_choice(shape, size, slots, step.filtered),
    }
    if settings.graphs:
        # All that may be captured: an evaluation has other slots, and more sizes of them, than a step.
        state["graphs"] = graphs(shape, settings.graphs, dense=not model.quantized or settings.merged)
    kept = settings.keep_graphs
    return RolloutMemory(
        resident=together(_resident(model, settings, device), state if kept else {}),
        peaks=[
            {"workspace": refreshing},
            {
                "cache": cache(shape, size, prompts),
                "activations": prefill(shape, size, prefilled)
                + arithmetic.scores(shape, prefilled, step.prompt_tokens, backward=False),
                "workspace": unpacked,
            },
            together(
                {
                    "cache": cache(shape, size, prompts),
                    "activations": arithmetic.scores(
                        shape, slots, step.prompt_tokens + step.new_tokens, backward=False
                    ),
                    "workspace": unpacked,
                },
                {} if kept else state,
            ),
        ],
    )


def eval_rows(model: HeldModel, step: StepShape, max_rollout_rows: int) -> int:
    """Sequences that an evaluation decodes at once: fewer than a rollout, because it prefills further prompts while decoding."""
    shape, size = model.shape, model.bytes_per_element
    row_bytes = cache(shape, size, _slot_tokens(step, 1)) + token_choice(shape, size, 1, step.filtered)
    rows = min(max_rollout_rows, step.rows)
    return max(1, rows - math.ceil(prefill(shape, size, _prefilled_together(step)) / row_bytes))


def planned_eval_rows(plan: Plan) -> int:
    """Sequences that an evaluation decodes at once by a plan."""
    return min(eval_rows(card.model, plan.step, plan.settings.max_rollout_rows) for card in plan.cards)


def _resident(model: HeldModel, settings: PlannedSettings, device: Device) -> MemoryBreakdown:
    if model.trains_all:  # rollouts run on the trained weights themselves, or on the copy that the update computes with
        return {}
    if settings.merged:
        return {"merged copy": merged_copy(model.shape, model.bytes_per_element, device)}
    return {"adapter": fused_adapter(model.shape, model.rank, model.bytes_per_element)}


def _prefilled_together(step: StepShape) -> int:
    """Prompt tokens in one forward pass of the prefill."""
    return min(step.prompts * step.prompt_tokens, max(PREFILL_TOKENS, step.prompt_tokens))


def _slot_tokens(step: StepShape, slots: int) -> int:
    """Token positions in a cache of `slots` slots."""
    return slots * (step.prompt_tokens + step.new_tokens + SYNC_MARGIN_TOKENS)


def merged_copy(shape: ModelShape, bytes_per_element: int, device: Device) -> float:
    """Bytes of base and adapters merged into dense linear layers, for rollouts; on a CPU with the head, which may be packed."""
    head = shape.vocabulary * shape.width
    packed = head if device.kind == "cpu" and head >= SMALL else 0
    return (shape.linear_weights + packed) * bytes_per_element


def fused_adapter(shape: ModelShape, rank: int, bytes_per_element: int) -> float:
    """Bytes of the adapters as rollouts use them: layers with the same input share a product."""
    return bytes_per_element * rank * shape.fused_lora_weights_per_rank


def cache(shape: ModelShape, bytes_per_element: int, tokens: int) -> float:
    """Bytes of a key and a value for each token, layer and key/value head."""
    return 2 * shape.layers * shape.kv_heads * shape.head_width * bytes_per_element * tokens


def graphs(shape: ModelShape, count: int, dense: bool) -> float:
    """Bytes that the driver keeps for CUDA graphs of decode steps.

    Args:
        shape: the model's shape.
        count: number of graphs.
        dense: whether a product reads dense weights, and not 4-bit ones and adapters.
    """
    kernels = KERNELS_OUTSIDE + shape.layers * (KERNELS_PER_LAYER if dense else KERNELS_PER_4_BIT_LAYER)
    return GRAPH_KERNEL_BYTES * kernels * count


def token_choice(shape: ModelShape, bytes_per_element: int, rows: int, filtered: bool) -> float:
    """Bytes for sampling a token for each row: logits, in 16 bits a copy in float32, with a small head a transposed one, and
    probabilities; in a small vocabulary their running sum in float64; with a filter also their sort (float32 values, int64
    indices, running sums, and masks)."""
    copied = 4 if bytes_per_element < 4 or shape.vocabulary * shape.width < SMALL else 0
    running_sum = 8 if shape.vocabulary <= SMALL_VOCAB else 0
    return (bytes_per_element + copied + 4 + running_sum + (24 if filtered else 0)) * shape.vocabulary * rows


def prefill(shape: ModelShape, bytes_per_element: int, tokens: int) -> float:
    """Bytes of the activations of prompts in one layer, without gradient, at the larger of two peaks.

    MLP: gate and up, the tensors that these are concatenated from or multiplied into, and four hidden states.
    Attention: two hidden states; queries, keys and values as projected, rotated, and unpacked into rows; the output in rows,
    joined, and packed again. Prompts are counted as if they had nothing in common.
    """
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    repeated = 2 * queries if shape.repeats_keys else 0
    mlp, attention = 4 * shape.mlp_width + 4 * shape.width, 2 * shape.width + 6 * queries + 5 * keys + repeated
    return bytes_per_element * tokens * max(mlp, attention)
