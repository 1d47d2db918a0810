"""Compute the roofline of a step: its operations and bytes, divided by the best rates measured on this machine.

The count is of the work itself, not of any program: every prompt goes through the model once per group, the adapters are merged
for the rollout, nothing is padded, nothing is computed twice, weights are read once per decoded token and twice per update, and
frozen weights get no gradient. A step can take less time only on another machine.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark.workloads import Shape

FLOAT = 4
"""Bytes per float32 value."""
RANK = 16
"""Of the adapters."""


@dataclass(frozen=True)
class PeakRates:
    """The best rates that were seen: float32 operations per second, bytes per second."""

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class StepTokens:
    """The tokens that one step had to process.

    Attributes:
        prompts: B, the number of prompts.
        prompt_tokens: tokens of all B prompts together.
        rows: N, the number of completions.
        completion_tokens: tokens of all N completions together.
        longest: tokens of the longest completion.
    """

    prompts: int
    prompt_tokens: float
    rows: int
    completion_tokens: float
    longest: float


def linear_weights(shape: Shape) -> int:
    """Weights of one layer's matrices."""
    return sum(i * o for i, o in _matrices(shape))


def adapter_weights(shape: Shape) -> int:
    """Weights of one layer's adapters."""
    return sum(RANK * (i + o) for i, o in _matrices(shape))


def _matrices(shape: Shape) -> list[tuple[int, int]]:
    """(in, out) of q, k, v, o, gate, up, down."""
    width, kv, mlp = shape.width, shape.width * shape.kv_heads // shape.heads, shape.mlp
    return [(width, width), (width, kv), (width, kv), (width, width), (width, mlp), (width, mlp), (mlp, width)]


def attended_tokens(prompts: int, prompt_tokens: float, rows: int, completion_tokens: float) -> float:
    """Sum over all tokens of how many tokens each one attends to, itself included; all lengths are taken to be the mean."""
    prompt, completion = prompt_tokens / prompts, completion_tokens / rows
    return prompts * prompt * (prompt + 1) / 2 + rows * completion * (prompt + (completion + 1) / 2)


def rollout_flops(shape: Shape, step: StepTokens) -> float:
    """Prefill and decoding: one multiplication and one addition per weight and token; logits for sampled tokens only."""
    tokens = step.prompt_tokens + step.completion_tokens - step.rows  # the last token of a row is not read any more
    attended = attended_tokens(step.prompts, step.prompt_tokens, step.rows, step.completion_tokens)
    layers = 2 * tokens * linear_weights(shape) + 4 * shape.width * attended
    return shape.layers * layers + 2 * step.completion_tokens * shape.vocabulary * shape.width


def rollout_bytes(shape: Shape, step: StepTokens) -> float:
    """All weights once per decoding step, and the keys and values that each token attends to."""
    weights = shape.layers * linear_weights(shape) + shape.vocabulary * shape.width
    kv = 2 * shape.width * shape.kv_heads // shape.heads
    attended = attended_tokens(step.prompts, step.prompt_tokens, step.rows, step.completion_tokens)
    return FLOAT * (step.longest * weights + shape.layers * kv * attended)


def update_flops(shape: Shape, tokens: float, logits: float, attended: float) -> float:
    """Forward and backward of the update.

    Frozen weights: one product forward, one backward for the input's gradient, which the first layer's q, k and v need not
    give. Adapters: one forward, two backward. Attention: two products forward, four backward. Head: as a frozen weight.

    Args:
        shape: the model's shape.
        tokens: the tokens of prompts and completions.
        logits: tokens that reach the head.
        attended: see `attended_tokens`.
    """
    kv = shape.width * shape.kv_heads // shape.heads
    frozen = 4 * linear_weights(shape)
    adapters = 6 * adapter_weights(shape)
    needless = 2 * shape.width * (shape.width + 2 * kv) + 3 * 2 * RANK * shape.width
    layers = shape.layers * (tokens * (frozen + adapters) + 12 * shape.width * attended) - tokens * needless
    return layers + 4 * logits * shape.vocabulary * shape.width


def least_seconds(shape: Shape, step: StepTokens, rates: PeakRates) -> dict[str, float]:
    """The minimum time of rollout and update: that of their operations or of their bytes, whichever is longer."""
    attended = attended_tokens(step.prompts, step.prompt_tokens, step.rows, step.completion_tokens)
    weights = FLOAT * (shape.layers * linear_weights(shape) + shape.vocabulary * shape.width)
    update = update_flops(shape, step.prompt_tokens + step.completion_tokens, step.completion_tokens, attended)
    return {
        "sample": max(rollout_flops(shape, step) / rates.flops, rollout_bytes(shape, step) / rates.bandwidth),
        "train": max(update / rates.flops, 2 * weights / rates.bandwidth),
    }


def matrix_rates(shape: Shape) -> dict[str, float]:
    """float32 operations per second for matrix products as they occur in the work, and for a large square one."""
    width, mlp, vocabulary = shape.width, shape.mlp, shape.vocabulary
    sizes = {
        "square": (2048, 2048, 2048),
        "layer": (4096, width, mlp),
        "head, update": (512, width, vocabulary),
        "head, decoding": (32, width, vocabulary),
    }
    rates = {}
    for name, (m, k, n) in sizes.items():
        a, b, out = torch.randn(m, k), torch.randn(n, k), torch.empty(m, n)
        rates[name] = 2 * m * k * n / _best_seconds(lambda a=a, b=b, out=out: torch.mm(a, b.T, out=out))  # type: ignore[misc]
    return rates


def bandwidths() -> dict[str, float]:
    """Bytes per second, read by a product of matrix and vector and copied (each byte read and written counts twice)."""
    matrix, vector = torch.ones(65_536, 1024), torch.ones(1024)
    out, target = torch.empty(65_536), torch.empty_like(matrix)
    return {
        "read": matrix.nbytes / _best_seconds(lambda: torch.mv(matrix, vector, out=out)),
        "copied": 2 * matrix.nbytes / _best_seconds(lambda: target.copy_(matrix)),
    }


def _best_seconds(work: Callable[[], Any], least: int = 5, most_seconds: float = 2.0) -> float:
    """The shortest of several times."""
    best, began, done = float("inf"), time.perf_counter(), 0
    while done < least or (done < 50 and time.perf_counter() - began < most_seconds):
        start = time.perf_counter()
        work()
        best, done = min(best, time.perf_counter() - start), done + 1
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shape = Shape.of(args.model)
    args.out.write_text(json.dumps({"flops": matrix_rates(shape), "bandwidth": bandwidths()}))


if __name__ == "__main__":
    main()
