"""95% intervals that stay honest at the edges, where the normal one has no width: all right, all wrong, nothing changed."""

from __future__ import annotations

import math
from typing import Any

_Z = 1.959964  # the normal distribution's 97.5% point


def share_interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Args:
        share: in [0, 1].
        n: how many it is a share of; at least 1.
    """
    centre = (share + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
    half = _Z / (1 + _Z * _Z / n) * math.sqrt(share * (1 - share) / n + _Z * _Z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_interval(figures: dict[str, Any]) -> tuple[float, float]:
    """Of the accuracy of an evaluation's figures: as recorded, else Wilson's."""
    if "low" in figures:
        return figures["low"], figures["high"]
    return share_interval(figures["accuracy"], figures["n"])


def paired_interval(before: list[float], after: list[float]) -> tuple[float, float, float]:
    """Mean difference of the same problems' scores in [0, 1], and its interval.

    Agresti and Min's: two pseudo-problems, half of one in each cell of the two-by-two table (Statistics in Medicine 24, 2005).
    For right and wrong it covers 95% also where few problems changed; the mean stays that of the data.

    Args:
        before: one score a problem; not empty.
        after: the same problems' scores later, or by another run.

    Returns:
        mean, low, high.
    """
    gains = [b - a for a, b in zip(before, after, strict=True)]
    n = len(gains) + 2
    centre = sum(gains) / n
    variance = (sum(g * g for g in gains) + 1) / n - centre * centre
    half = _Z * math.sqrt(variance / n)
    return sum(gains) / len(gains), max(-1.0, centre - half), min(1.0, centre + half)


def mcnemar(before: list[float], after: list[float]) -> float:
    """Two-sided exact p-value that right and wrong answers changed places by luck: McNemar's test, scores 0 or 1."""
    better = sum(b > a for a, b in zip(before, after, strict=True))
    worse = sum(b < a for a, b in zip(before, after, strict=True))
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**n)
