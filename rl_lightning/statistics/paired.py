"""Paired difference of two evaluations of the same problems: its 95% interval, and the exact p-value under no true difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rl_lightning.statistics.bootstrap import bootstrap_interval
from rl_lightning.statistics.intervals import Array, Interval, paired_score_interval

FEW_CHANGES = 40
"""If fewer problems than this changed, a bootstrap has too little to draw from."""


@dataclass(frozen=True)
class Difference:
    """A mean paired difference with its 95% interval.

    Attributes:
        mean: mean of after minus before, in [-1, 1].
        low: lower end of the interval.
        high: upper end of the interval.
    """

    mean: float
    low: float
    high: float


def paired_difference(before: Sequence[float], after: Sequence[float], tasks: Sequence[object]) -> Difference:
    """Compute the mean difference of two evaluations of the same n problems, paired by problem.

    Args:
        before: (n,) in [0, 1], each problem's score: right or wrong, the share of right samples, or a partial score.
        after: (n,) of the same problems in the same order.
        tasks: (n,) labels of the problems' tasks; a suite has a fixed number of problems of each task.
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    interval = difference_interval(differences[None], tasks)
    return Difference(float(differences.mean()), float(interval.low[0]), float(interval.high[0]))


def difference_interval(differences: Array, tasks: Sequence[object]) -> Interval:
    """Compute the 95% interval of the mean difference for each of S suites.

    The score interval where answers are right or wrong, or where few problems changed; the studentised bootstrap where scores
    are partial.

    Args:
        differences: (S, n) in [-1, 1], after minus before.
        tasks: (n,) labels.
    """
    low, high = paired_score_interval(differences, tasks)
    size = np.abs(differences)
    one_size = (size == size.max(axis=-1, keepdims=True)) | (size == 0)
    partial = ~one_size.all(axis=-1) & (np.count_nonzero(differences, axis=-1) >= FEW_CHANGES)
    if partial.any():
        low[partial], high[partial] = bootstrap_interval(differences[partial], tasks)
    return Interval(low, high)


def sign_flip_p(differences: Sequence[int]) -> float:
    """Compute the exact two-sided p-value of the hypothesis that a problem is as likely to gain as to lose.

    This is the permutation test of the sum of paired differences over all sign flips. With one sample per problem it is
    McNemar's exact test, a binomial test of the problems that changed. The number of ways to reach each sum is counted by
    convolution, one problem at a time; enumerating the flips would take 2^n steps.

    Args:
        differences: (n,) each problem's number of right samples after minus before.

    Returns:
        the share of all 2^n choices of signs whose sum is at least as far from 0 as the observed one.
    """
    sizes = [abs(difference) for difference in differences if difference]
    chances = np.ones(1)  # chances[s]: that the sizes of the problems with a plus sign add up to s
    for size in sizes:
        either_sign = np.zeros(size + 1)
        either_sign[[0, size]] = 0.5
        chances = np.convolve(chances, either_sign)
    # If those with a plus sign add up to s, the signed sum is s - (total - s).
    signed_sums = 2 * np.arange(len(chances)) - sum(sizes)
    return float(min(chances[np.abs(signed_sums) >= abs(sum(differences))].sum(), 1.0))
