"""Mean over a few runs that differ only in their seed, with Student's t interval.

Student's, because the spread between runs is itself only known from these few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class RunMean:
    """A mean over runs with its 95% interval.

    Attributes:
        mean: mean over the runs.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    mean: float
    low: float
    high: float

    @property
    def within_noise(self) -> bool:
        """Whether the interval contains 0, so that a true mean of 0 would be no surprise."""
        return self.low <= 0 <= self.high


def mean_over_runs(values: Sequence[float], least: float, most: float) -> RunMean:
    """Compute the mean and its 95% interval over runs of different seeds.

    Args:
        values: one per run, at least one; for a comparison of two settings the paired differences, seed by seed.
        least: the lowest value that is possible. The interval is truncated there.
        most: the highest value that is possible, likewise.

    Returns:
        the mean with its interval. A single run says nothing about the spread: its interval is everything from `least` to
        `most`.
    """
    mean, n = fmean(values), len(values)
    if n == 1:
        return RunMean(mean, least, most)
    reach = student_quantile(n - 1) * stdev(values) / math.sqrt(n)
    return RunMean(mean, max(mean - reach, least), min(mean + reach, most))


def student_quantile(degrees_of_freedom: int) -> float:
    """Return the 97.5% quantile of Student's t distribution; 2.776 for 4 degrees of freedom.

    Args:
        degrees_of_freedom: at least 1.
    """
    from scipy.special import (
        stdtrit,
    )  # not at import: commands that compare no runs of different seeds do without its 0.2 s

    return float(stdtrit(degrees_of_freedom, 0.975))
