"""The mean over a few runs that differ in their seed, and how sure it is: Student's interval, since the spread is known from these
few runs alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

_HALVINGS = 60


@dataclass(frozen=True)
class RunMean:
    """A mean over runs with its 95% interval.

    Attributes:
        mean: of the runs.
        low: lower end of the interval.
        high: its upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether a true mean of 0 would be no surprise."""
        return self.low <= 0 <= self.high


def mean_over_runs(values: Sequence[float], least: float, most: float) -> RunMean:
    """Mean and 95% interval over runs of different seeds.

    Args:
        values: one a run, at least one; for a comparison the paired differences, seed by seed.
        least: the lowest that a value can be.
        most: the highest; the interval does not reach beyond either. One run says nothing of the spread: its interval is all
            between.
    """
    mean, n = fmean(values), len(values)
    if n == 1:
        return RunMean(mean, least, most)
    reach = t_quantile(n - 1) * stdev(values) / math.sqrt(n)
    return RunMean(mean, max(mean - reach, least), min(mean + reach, most))


@cache
def t_quantile(freedom: int) -> float:
    """97.5% quantile of Student's distribution; 2.776 for 4 degrees of freedom.

    Args:
        freedom: its degrees, at least 1.
    """
    below, above = 0.0, 13.0  # 12.71 is the largest, for one degree
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        below, above = (middle, above) if _within(middle, freedom) < 0.95 else (below, middle)
    return above


def _within(t: float, freedom: int) -> float:
    """Probability between -t and t (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle, odd = math.atan(t / math.sqrt(freedom)), freedom % 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for place in range(1 + odd, freedom, 2):
        total += term
        term *= place / (place + 1) * math.cos(angle) ** 2
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
