"""What the machine could do at best: the operations and bytes of a step, and the rates at which it was seen to do them.

The count is of the work itself, not of any program: every prompt goes through the model once a group, the adapters are merged
for the rollout, nothing is padded, nothing is computed twice, weights are read once a decoded token and twice an update, and
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

from benchmark.work import Shape

FLOAT = 4
"""Bytes of a float32."""
RANK = 16
"""Of the adapters."""


@dataclass(frozen=True)
class Machine:
    """The best that was seen: float32 operations a second, bytes a second."""

    flops: float
    bandwidth: float


@dataclass(frozen=True)
class Tokens:
    """What one step had to do.

    Attributes:
        prompts: B.
        prompt_tokens: of all B prompts together.
        rows: N completions.
        completion_tokens: of all N together.
        longest: of the longest completion.
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


def attended(prompts: int, prompt_tokens: float, rows: int, completion_tokens: float) -> float:
    """Sum over all tokens of how many tokens each one looks at, itself included; lengths as if all were the mean."""
    prompt, completion = prompt_tokens / prompts, completion_tokens / rows
    return prompts * prompt * (prompt + 1) / 2 + rows * completion * (prompt + (completion + 1) / 2)


def rollout_flops(shape: Shape, work: Tokens) -> float:
    """Prefill and decoding: a multiplication and an addition a weight and token; logits for drawn tokens only."""
    tokens = work.prompt_tokens + work.completion_tokens - work.rows  # the last token of a row is not read any more
    looked_at = attended(work.prompts, work.prompt_tokens, work.rows, work.completion_tokens)
    layers = 2 * tokens * linear_weights(shape) + 4 * shape.width * looked_at
    return shape.layers * layers + 2 * work.completion_tokens * shape.vocabulary * shape.width


def rollout_bytes(shape: Shape, work: Tokens) -> float:
    """All weights once a step of decoding, and the keys and values that each token looks at."""
    weights = shape.layers * linear_weights(shape) + shape.vocabulary * shape.width
    kv = 2 * shape.width * shape.kv_heads // shape.heads
    looked_at = attended(work.prompts, work.prompt_tokens, work.rows, work.completion_tokens)
    return FLOAT * (work.longest * weights + shape.layers * kv * looked_at)


def update_flops(shape: Shape, tokens: float, logits: float, looked_at: float) -> float:
    """Forward and backward of the update.

    Frozen weights: one product forward, one backward for the input's gradient, which the first layer's q, k and v need not
    give. Adapters: one forward, two backward. Attention: two products forward, four backward. Head: as a frozen weight.
    """
    kv = shape.width * shape.kv_heads // shape.heads
    frozen = 4 * linear_weights(shape)
    adapters = 6 * adapter_weights(shape)
    needless = 2 * shape.width * (shape.width + 2 * kv) + 3 * 2 * RANK * shape.width
    layers = shape.layers * (tokens * (frozen + adapters) + 12 * shape.width * looked_at) - tokens * needless
    return layers + 4 * logits * shape.vocabulary * shape.width


def least_seconds(shape: Shape, work: Tokens, machine: Machine) -> dict[str, float]:
    """The time that rollout and update need at least: that of their operations or of their bytes, whichever is more."""
    looked_at = attended(work.prompts, work.prompt_tokens, work.rows, work.completion_tokens)
    weights = FLOAT * (shape.layers * linear_weights(shape) + shape.vocabulary * shape.width)
    update = update_flops(shape, work.prompt_tokens + work.completion_tokens, work.completion_tokens, looked_at)
    return {
        "sample": max(rollout_flops(shape, work) / machine.flops, rollout_bytes(shape, work) / machine.bandwidth),
        "train": max(update / machine.flops, 2 * weights / machine.bandwidth),
    }


def matrix_rates(shape: Shape) -> dict[str, float]:
    """float32 operations a second of products as they occur in the work, and of a large square one."""
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
    """Bytes a second, read by a product of matrix and vector and copied (each byte read and written counts twice)."""
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
