"""What a training step holds in memory, part by part: arithmetic from the model's shape, without a weight.

Every function is one part. `unit` is the bytes of a number in the compute dtype: 2, or 4 for float32.

What is not here costs less than a hundredth: norms, masks, token ids, sampled log-probs, rotary tables.
"""

from __future__ import annotations

from rl_lightning.policy.logprobs import tile_of
from rl_lightning.policy.shapes import ModelShape
from rl_lightning.rollout.sampling import FEW_WORDS

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight in 4 bits, an 8-bit scale every 64 weights, a float32 scale every 256 of these (double quantisation)."""

CUDA_CONTEXT = 500_000_000
"""Bytes of a process that uses CUDA, before its first tensor: kernels, cuBLAS workspaces."""

CPU_CONTEXT = 700_000_000
"""Bytes of a process that has imported torch, Lightning and transformers, before its first tensor."""

SLACK = 0.1
"""Share of what comes and goes that the allocator loses to rounding and fragments."""

OVERRUN_TOKENS = 16
"""Room in a slot beyond prompt and completion: a few steps between two looks at what has ended, rounded to eights."""


def base(shape: ModelShape, unit: int, quantized: bool) -> float:
    """The frozen base: linear layers in 4 bits, embeddings, norms and head in the compute dtype."""
    return shape.linear_weights * (NF4_BYTES if quantized else unit) + shape.other_weights * unit


def largest_dense(shape: ModelShape, unit: int) -> float:
    """One linear layer's weights unpacked: 4-bit products of many rows do that, and so does loading."""
    return shape.largest_linear * unit


def merged_copy(shape: ModelShape, unit: int) -> float:
    """Base and adapters as dense linear layers, for rollouts."""
    return shape.linear_weights * unit


def adapter(shape: ModelShape, rank: int) -> float:
    """Master weights in float32; their gradient is as large, and each of Adam's two moments."""
    return 4 * shape.lora_weights_a_rank * rank


def fused_adapter(shape: ModelShape, rank: int, unit: int) -> float:
    """Adapters as rollouts multiply them: layers that read the same input share a product, B as a matrix of their blocks."""
    joined, pair = (1, 1) if shape.fused_qkv else (3, 2)
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    a = shape.width * (joined + pair) + queries + shape.mlp_width
    b = (queries + 2 * keys) * joined + 2 * shape.mlp_width * pair + 2 * shape.width
    return unit * rank * shape.layers * (a + b)


def cache(shape: ModelShape, unit: int, tokens: int) -> float:
    """A key and a value for each token, layer and key/value head."""
    return 2 * shape.layers * shape.kv_heads * shape.head_width * unit * tokens


def draws(shape: ModelShape, unit: int, rows: int, filtered: bool) -> float:
    """Choosing a token for each of R rows: logits, the same in float32 for the temperature or turned over on a CPU, and
    probabilities; where words are few, their running sum in float64; a filter sorts them too (float32 values, int64 places,
    running sums, a mask of each)."""
    summed = 8 if shape.vocabulary <= FEW_WORDS else 0
    return (unit + 2 * 4 + summed + (24 if filtered else 0)) * shape.vocabulary * rows


def prefill(shape: ModelShape, unit: int, tokens: int) -> float:
    """Prompts on their way through one layer, without gradient: gate and up, and what they are joined from or multiplied to;
    and four hidden states."""
    return unit * tokens * (4 * shape.mlp_width + 4 * shape.width)


def saved_a_layer(shape: ModelShape, unit: int, rank: int, tokens: int, places: int) -> float:
    """Bytes that autograd keeps of one layer. Weights are frozen, so only what LoRA and the non-linear parts need:

    norms: their input in float32 and their output, twice, and a float32 a row;
    attention: queries, keys, values and the result at every place of the rows, a float32 a head, and the result a token;
    MLP: gate, silu(gate), up and their product;
    LoRA: what comes out of A, `rank` numbers a linear module;
    Qwen3's norms of queries and keys: these in float32 once more, and a float32 a head.

    Args:
        shape: the model's.
        unit: bytes of a number in the compute dtype.
        rank: LoRA's.
        tokens: packed, of the micro-batch.
        places: of these in the rows of attention.
    """
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    norms = 2 * ((4 + unit) * shape.width + 4)
    mlp, lora = 4 * unit * shape.mlp_width, unit * rank * shape.linears_a_layer
    qk_norms = 4 * (queries + keys + shape.heads + shape.kv_heads) if shape.norms_qk else 0
    attention = 2 * unit * (queries + keys) + 4 * shape.heads
    return tokens * (norms + unit * queries + mlp + lora + qk_norms) + places * attention


def kept_for_backward(saved: float, shape: ModelShape, unit: int, tokens: int, checkpointing: bool) -> float:
    """What the forward pass leaves: with checkpointing the input of each layer, without it all that autograd keeps."""
    return shape.layers * (tokens * unit * shape.width if checkpointing else saved)


def backward_of_a_layer(saved: float, shape: ModelShape, unit: int, tokens: int, checkpointing: bool) -> float:
    """On top of that, while gradients pass a layer: with checkpointing that layer, computed again, less the MLP's product,
    which is gone by then; the gradients of the MLP's product and of a factor of it; the last hidden states, their gradient,
    and the last norm's float32 input."""
    again = saved - tokens * unit * shape.mlp_width if checkpointing else 0
    return again + tokens * (2 * unit * shape.mlp_width + (2 * unit + 4) * shape.width)


def head(shape: ModelShape, unit: int, tokens: int) -> float:
    """Hidden states at the head: all, those of completion tokens, their gradient, and the last norm's float32 input."""
    return tokens * (3 * unit + 4) * shape.width


def logits(shape: ModelShape, unit: int, tokens: int) -> float:
    """One tile: logits and exponentials in float32, and either of them once more where the head is not; and for its tokens
    the mean embedding in float32, its distance from the target's own, and their slope."""
    most, words = tile_of(shape.vocabulary)
    rows = min(tokens, most)
    return rows * ((2 * 4 + (unit if unit == 2 else 0)) * words + (3 * 4 + unit) * shape.width)
