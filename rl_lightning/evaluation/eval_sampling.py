"""Sampling in the evaluation: several completions per problem, from random numbers that depend on the problem alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rl_lightning.types import Problem

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EvalSampling:
    """Sample several completions per problem instead of one greedy one.

    Attributes:
        samples: k, completions per problem.
        temperature: divides the logits. No filter (top-k, top-p, min-p) is applied.
    """

    samples: int
    temperature: float


def problem_draws(problems: Sequence[Problem], samples: int, length: int) -> Tensor:
    """Draw the random numbers for each problem's samples, seeded by a hash of its task and question.

    They are the same at every step and whatever else is evaluated, and no random generator of the run is used.

    Args:
        problems: B problems.
        samples: k, completions per problem.
        length: T, the maximum number of tokens of a completion.

    Returns:
        (B * k, T) float64 in [0, 1).
    """
    import torch  # takes a second, and `compare` needs none of it

    parts = []
    for problem in problems:
        digest = hashlib.blake2b(f"{problem.task}\0{problem.question}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        parts.append(torch.rand(samples, length, generator=generator, dtype=torch.float64))
    return torch.cat(parts)
