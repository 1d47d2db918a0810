"""pass@k and maj@k of several samples per problem. The share of right samples, mean@k, is a plain mean and needs no function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Estimate without bias the chance that at least one of k samples is right, from `samples` >= k of them (arXiv 2107.03374).

    Args:
        samples: completions drawn for a problem; at least k.
        right: how many of them are right.
        k: at least 1.

    Raises:
        ValueError: k is out of range.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k is {k}; it must be in 1..{samples}")
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority_at_k(answers: Sequence[str | None], exact: Sequence[float]) -> float:
    """Score the most common answer of k samples: 1 if it is right, 0 if not, and on a tie the share of tied answers that is right.

    Args:
        answers: (k,) extracted answers; None where a completion has none, which counts as no vote.
        exact: (k,) 1.0 for a right answer, else 0.0.

    Returns:
        in [0, 1]; 0 if no sample has an answer.
    """
    exact_of = dict(zip(answers, exact, strict=True))
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    tied = [exact_of[answer] for answer, count in votes.items() if count == most]
    return sum(tied) / len(tied)
