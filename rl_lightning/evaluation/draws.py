"""How an evaluation draws: several samples a problem, from random numbers that belong to the problem alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rl_lightning.types import Problem


@dataclass(frozen=True)
class Draws:
    """Samples in place of one greedy completion.

    Attributes:
        samples: k, completions a problem.
        temperature: divides the logits; no filter is applied.
    """

    samples: int
    temperature: float


def draws_of(problems: Sequence[Problem], samples: int, length: int) -> Tensor:
    """The random numbers of each problem, by its question: whatever is evaluated beside it, they stay the same, and no
    generator of the run is touched.

    Args:
        problems: B of them.
        samples: k a problem.
        length: T, the most tokens of a completion.

    Returns:
        (B * k, T) float64 in [0, 1).
    """
    parts = []
    for problem in problems:
        digest = hashlib.blake2b(f"{problem.task}\0{problem.question}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        parts.append(torch.rand(samples, length, generator=generator, dtype=torch.float64))
    return torch.cat(parts)
