"""Figures of several samples a problem. The share that is right, mean@k, is a mean and needs no function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that at least one of k samples is right, estimated without bias from more (arXiv 2107.03374).

    Args:
        samples: completions drawn of a problem; at least k.
        right: how many of them are.
        k: at least 1.

    Raises:
        ValueError: k is out of range.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k is {k}; it must be in 1..{samples}")
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority_at_k(answers: Sequence[str | None], exact: Sequence[float]) -> float:
    """Whether the commonest answer is right; of answers equally common, the share that is.

    Args:
        answers: (k,) extracted answers, None where there is none: that is no vote.
        exact: (k,) 1.0 for a right one, else 0.0.

    Returns:
        in [0, 1]; 0 without any answer.
    """
    worth = dict(zip(answers, exact, strict=True))
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    chosen = [worth[answer] for answer, count in votes.items() if count == most]
    return sum(chosen) / len(chosen)
