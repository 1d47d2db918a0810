"""Two evaluations of the same problems: by how much do they differ, and could that be luck?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rl_lightning.statistics.bootstrap import bootstrap_interval
from rl_lightning.statistics.intervals import Array, Interval, paired_score_interval

FEW_CHANGES = 40
"""With fewer problems that changed than this, a bootstrap has too little to draw from."""


@dataclass(frozen=True)
class Difference:
    """A mean paired difference with its 95% interval.

    Attributes:
        mean: after minus before, in [-1, 1].
        low: lower end of the interval.
        high: its upper end.
    """

    mean: float
    low: float
    high: float


def paired_difference(before: Sequence[float], after: Sequence[float], tasks: Sequence[object]) -> Difference:
    """The difference of two evaluations of the same n problems, by the problem.

    Args:
        before: (n,) in [0, 1], a problem's score: right or wrong, share of right samples, or partial.
        after: (n,) the same problems in the same order.
        tasks: (n,) labels; each task has its number of problems in every suite.
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    ends = difference_interval(differences[None], tasks)
    return Difference(float(differences.mean()), float(ends.low[0]), float(ends.high[0]))


def difference_interval(differences: Array, tasks: Sequence[object]) -> Interval:
    """Of S suites' (S, n) differences: the score interval where an answer is right or wrong or few problems changed, the
    studentised bootstrap where scores are partial."""
    low, high = paired_score_interval(differences, tasks)
    size = np.abs(differences)
    one_size = (size == size.max(axis=-1, keepdims=True)) | (size == 0)
    partial = ~one_size.all(axis=-1) & (np.count_nonzero(differences, axis=-1) >= FEW_CHANGES)
    if partial.any():
        low[partial], high[partial] = bootstrap_interval(differences[partial], tasks)
    return Interval(low, high)


def sign_flip_p(differences: Sequence[int]) -> float:
    """The exact two-sided p-value of "as likely to gain as to lose": with right and wrong answers it is McNemar's.

    Args:
        differences: (n,) a problem's right samples after minus before.

    Returns:
        the share of all 2^n ways to choose the signs whose sum is at least as far from 0 as the one found.
    """
    sizes = [abs(d) for d in differences if d]
    ways = np.ones(1)  # chances of the sums that can be reached by adding a size or not
    for size in sizes:
        wider = np.zeros(len(ways) + size)
        wider[: len(ways)] += ways / 2
        wider[size:] += ways / 2
        ways = wider
    # Signs of sum s add up what is positive: (s + sum of all sizes) / 2. Doubled, so that it stays a whole number.
    sums = 2 * np.arange(len(ways)) - sum(sizes)
    return float(min(ways[np.abs(sums) >= abs(sum(differences))].sum(), 1.0))
