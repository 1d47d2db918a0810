"""Compute the bytes of each part of memory (base, adapters, update) from the model's shape, without loading weights.

Every function returns the bytes of one part. `bytes_per_element` is the size of the compute dtype: 2, or 4 for float32.

Parts that are not here take less than a hundredth: norms, masks, token ids, sampled log-probs, rotary tables.
"""

from __future__ import annotations

from rl_lightning.memory.shapes import ModelShape
from rl_lightning.policy.attention import SCORES
from rl_lightning.policy.logprobs import tile_of

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per weight: 4 bits, an 8-bit scale per 64 weights, a float32 scale per 256 of these (double quantisation)."""

CUDA_CONTEXT = 500_000_000
"""Bytes used by a process with CUDA, before its first tensor: kernels, cuBLAS workspaces."""

CPU_CONTEXT = 700_000_000
"""Bytes used by a process that has imported torch, Lightning and transformers, before its first tensor."""

SLACK = 0.1
"""Share of temporary memory that the allocator loses to rounding and fragmentation."""


def base(shape: ModelShape, bytes_per_element: int, quantized: bool) -> float:
    """The frozen base: linear layers in 4 bits, embeddings, norms, head and fused experts in the compute dtype."""
    linear = shape.linear_weights + shape.frozen_linear_weights
    return linear * (NF4_BYTES if quantized else bytes_per_element) + shape.other_weights * bytes_per_element


def all_weights(shape: ModelShape, bytes_per_element: int) -> tuple[float, float]:
    """Where all weights are trained: these in float32 with what stays frozen (a vision tower), and their copy in a compute dtype of
    16 bits. Gradient, Adam's two moments and the reference model are as large as the former, twice that, and the latter; in float32
    the reference is as large as the weights."""
    frozen = shape.parameters - shape.text_weights
    return 4 * shape.text_weights + bytes_per_element * frozen, 2 * shape.text_weights if bytes_per_element == 2 else 0


def vocabulary_gradients(shape: ModelShape, bytes_per_element: int) -> tuple[float, float, float, float]:
    """Where all weights are trained: what is held of the gradients of output head and input embedding, besides the sum over the
    micro-batches. At the head, while its sum over the tiles grows in float32, and in 16 bits when that is rounded; in the layers,
    because the part of a head that is the embedding too waits for the embedding's; and at the embedding."""
    one = shape.vocabulary * shape.width
    waiting = bytes_per_element * one if shape.tied else 0
    rounded = bytes_per_element * one if bytes_per_element == 2 else 0
    return 4 * one, 4 * one + rounded, waiting, waiting + bytes_per_element * one


def largest_dense(shape: ModelShape, bytes_per_element: int) -> float:
    """The largest linear layer dequantised to the compute dtype, as 4-bit products of many rows and loading do."""
    return shape.largest_linear * bytes_per_element


def adapter(shape: ModelShape, rank: int) -> float:
    """Master weights in float32. Their gradient has the same size, and so has each of Adam's two moments."""
    return 4 * shape.lora_weights_per_rank * rank


def saved_per_layer(shape: ModelShape, bytes_per_element: int, rank: int, tokens: int, slots: int) -> float:
    """Bytes that autograd saves of one layer, for LoRA and the non-linear parts:

    norms: each its input in float32, its output, and a float32 per token;
    attention: queries, keys, values, output and a float32 per head at every padded slot, and the output again per token; keys and
        values for every query head where they are repeated;
    MLP: gate, silu(gate), up and their product;
    LoRA: the output of A, `rank` numbers per adapted linear module;
    Qwen3's norms of queries and keys: both in float32 again, and a float32 per head.

    Where all weights are trained: no outputs of A, and what each norm multiplies by its weight.

    Args:
        shape: the model's shape.
        bytes_per_element: bytes of a number in the compute dtype.
        rank: LoRA's rank; 0: all weights are trained.
        tokens: packed tokens of the micro-batch.
        slots: padded slots of its attention rows, padding included.
    """
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    norms = shape.norms * ((4 + bytes_per_element) * shape.width + 4)
    mlp, lora = 4 * bytes_per_element * shape.mlp_width, bytes_per_element * rank * shape.adapted_per_layer
    qk_norms = 4 * (queries + keys + shape.heads + shape.kv_heads) if shape.norms_qk else 0
    if rank == 0:
        norms += shape.norms * bytes_per_element * shape.width
        qk_norms += bytes_per_element * (queries + keys) if shape.norms_qk else 0
    attended = queries if shape.repeats_keys else keys
    attention = 2 * bytes_per_element * (queries + attended) + 4 * shape.heads
    return tokens * (norms + bytes_per_element * queries + mlp + lora + qk_norms) + slots * attention


def scores(shape: ModelShape, slots: int, longest: int, backward: bool) -> float:
    """Scores of attention that PyTorch has no fused kernel for: what is at once in memory of products, capped and masked ones and
    weights, and of their gradients. It is measured in float32, and 14 instead of 16 bytes in bfloat16.

    Args:
        shape: the model's shape.
        slots: queries, padding included.
        longest: keys that a query attends to.
        backward: whether it is the peak of the backward pass.
    """
    if shape.fused_attention:
        return 0.0
    return (16 if backward else 12) * min(max(SCORES, shape.heads * longest), shape.heads * slots * longest)


def kept_for_backward(
    saved: float, shape: ModelShape, bytes_per_element: int, tokens: int, checkpointing: bool
) -> float:
    """Activations kept after the forward pass: with checkpointing the input of each layer, else all that autograd saves."""
    return shape.layers * (tokens * bytes_per_element * shape.width if checkpointing else saved)


def backward_of_layer(
    saved: float, shape: ModelShape, bytes_per_element: int, tokens: int, checkpointing: bool
) -> float:
    """Additional memory during the backward pass of one layer.

    With checkpointing all that autograd saves of the recomputed layer; the gradients of the MLP's product and of both its factors,
    of which one takes the place of the product; and the gradient of the layer's output.
    """
    recomputed = saved if checkpointing else 0
    return recomputed + tokens * bytes_per_element * (2 * shape.mlp_width + shape.width)


def reference_forward(shape: ModelShape, bytes_per_element: int, tokens: int, slots: int) -> float:
    """The reference model's forward pass, while what the first one saved is held: that one's last hidden states, in float32 too,
    and the gradient of its log-probs; and without gradient one layer, at the larger of two peaks.

    MLP: silu(gate), up and their product, and three hidden states. Attention: two hidden states; queries, keys and values as they
    are projected, rotated, and in rows, repeated or not; and its output.
    """
    queries, keys = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    repeated = 2 * (queries - keys) if shape.repeats_keys else 0
    held = tokens * (4 + 2 * bytes_per_element) * shape.width
    mlp = tokens * (3 * shape.mlp_width + 3 * shape.width)
    attention = tokens * (2 * shape.width + 2 * (queries + keys)) + slots * (2 * queries + 2 * keys + repeated)
    return held + bytes_per_element * max(mlp, attention)


def head(shape: ModelShape, bytes_per_element: int, tokens: int, trains_entropy: bool) -> float:
    """Hidden states at the output head: all, those of completion tokens, their gradient, that of the entropies where it is needed,
    and the last norm's float32 input."""
    if shape.vocabulary == 0:
        return 0.0
    return tokens * ((3 + trains_entropy) * bytes_per_element + 4) * shape.width


def logits(shape: ModelShape, bytes_per_element: int, tokens: int, trains_entropy: bool) -> float:
    """One tile of logits: logits and exponentials in float32, and one of them in the head's dtype where that is not float32; and
    for its tokens the mean embedding in float32, its difference from the target's embedding, and the gradient of the log-prob.

    With the gradient of the entropies, the larger of two peaks. While the tile is summed up: logits, exponentials, their product,
    and the tile's embeddings where they are not in float32; two means and a part of one. At the end: logits and exponentials; the
    two means, the gradient's two terms, their sum, and that once more; and the target's embedding.
    """
    if shape.vocabulary == 0:
        return 0.0
    tile_tokens, vocabulary = tile_of(shape.vocabulary)
    rows = min(tokens, tile_tokens)
    rounded = bytes_per_element == 2
    if trains_entropy:
        summing = rows * (3 * 4 * vocabulary + 3 * 4 * shape.width) + rounded * 4 * vocabulary * shape.width
        return max(summing, rows * (2 * 4 * vocabulary + (6 * 4 + bytes_per_element) * shape.width))
    return rows * ((2 * 4 + 2 * rounded) * vocabulary + (3 * 4 + bytes_per_element) * shape.width)
