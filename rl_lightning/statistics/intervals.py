"""95% intervals of an accuracy (Wilson) and of a paired difference (Tango) for a suite with a fixed number of problems per task.

Both invert a test, so they hold where the normal interval does not: with few problems, or with accuracies near 0 and 1.

A suite has a fixed number of problems of each task (strata), which leaves less to chance than as many problems drawn from a
mixture of the tasks. Values between 0 and 1, such as shares of right samples, vary less than right and wrong. The intervals allow
for both through the effective size: the number of right-or-wrong problems of one task that would be as uncertain. It is seldom a
whole number, which is why scipy.stats.binomtest's Wilson interval cannot be used here; scipy has no Tango interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""97.5% quantile of the normal distribution, scipy.stats.norm.ppf(0.975).

Written out because `report` and `compare` need nothing else of scipy, whose import would take them 0.2 s.
"""

_HALVINGS = 32
"""Steps of the bisection in `_tango`: it ends within 2^-32 of the solution."""

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """Lower and upper ends of 95% intervals, each of the shape of the estimates that they enclose."""

    low: Array
    high: Array


def strata(tasks: Sequence[object]) -> list[NDArray[np.intp]]:
    """Return the positions of each task's problems.

    A single problem says nothing about the spread within its task: if a task has only one, all problems form one stratum.

    Args:
        tasks: (n,) labels.
    """
    labels = np.unique(np.asarray([str(task) for task in tasks]), return_inverse=True)[1]
    parts = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    return parts if min(map(len, parts)) > 1 else [np.arange(len(tasks))]


def variance_of_mean(values: Array, parts: list[NDArray[np.intp]]) -> Array:
    """Estimate the variance of the mean of a stratified sample.

    Args:
        values: (…, n).
        parts: the positions of each stratum.

    Returns:
        (…,); 0 where n is 1.
    """
    n = values.shape[-1]
    if n == 1:
        return np.zeros(values.shape[:-1])
    total = sum(len(part) * values[..., part].var(axis=-1, ddof=1) for part in parts)
    return np.asarray(total) / n**2


def share_interval(values: Array, tasks: Sequence[object]) -> Interval:
    """Compute Wilson's score interval of a mean of values in [0, 1].

    Args:
        values: (…, n) 0 or 1, or each problem's share of right samples.
        tasks: (n,) labels; a suite has a fixed number of problems of each task.
    """
    n, p = values.shape[-1], values.mean(axis=-1)
    size = _effective_size(n, variance_of_mean(values, strata(tasks)), p * (1 - p) / max(n - 1, 1))
    middle = (p + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * np.sqrt(p * (1 - p) / size + Z**2 / (4 * size**2))
    # At shares of 0 and 1 rounding would leave the share itself outside.
    return Interval(np.clip(middle - half, 0.0, p), np.clip(middle + half, p, 1.0))


def paired_score_interval(differences: Array, tasks: Sequence[object]) -> Interval:
    """Compute Tango's score interval of a mean paired difference (Statistics in Medicine 17, 1998).

    Tango's is for right and wrong. Other differences are divided by their typical size first, and enter through their first two
    moments.

    Args:
        differences: (…, n) in [-1, 1], after minus before.
        tasks: (n,) labels.
    """
    n = differences.shape[-1]
    absolute = np.abs(differences).sum(axis=-1)
    unit = np.where(absolute > 0, (differences**2).sum(axis=-1) / np.where(absolute > 0, absolute, 1.0), 1.0)
    scaled = differences / unit[..., None]
    unstratified = variance_of_mean(scaled, [np.arange(n)])
    size = _effective_size(n, variance_of_mean(scaled, strata(tasks)), unstratified)
    mean, square = scaled.mean(axis=-1), (scaled**2).mean(axis=-1)
    low, high = _tango((square + mean) / 2 * size, (square - mean) / 2 * size, size)
    return Interval(np.maximum(low * unit, -1.0), np.minimum(high * unit, 1.0))


def _effective_size(n: int, variance: Array, reference: Array) -> Array:
    """Return how many problems would have the given variance of their mean if n of them have the reference; at least n.

    The variance that one problem contributes is added to both: tasks that were all right and all wrong this time are not certain
    to be so again.
    """
    return n * np.maximum((reference + 1 / n**2) / (variance + 1 / n**2), 1.0)


def _tango(better: Array, worse: Array, n: Array) -> Interval:
    """Return the ends of the range of differences that the score test does not reject, if of n problems `better` got better and
    `worse` got worse.

    By bisection, for both ends at once, between -1 or 1 and the observed difference.
    """
    mean = (better - worse) / n
    side = np.array([-1.0, 1.0]).reshape(2, *[1] * mean.ndim)
    outside, inside = side + np.zeros_like(mean), side * 0 + mean
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        rejected = -side * _score(better, worse, n, middle) > Z
        outside, inside = np.where(rejected, middle, outside), np.where(rejected, inside, middle)
    return Interval(*(outside + inside) / 2)


def _score(better: Array, worse: Array, n: Array, difference: Array) -> Array:
    """Return the distance of the data from a true difference, in standard deviations.

    The standard deviation is the one under the most likely shares of better and worse problems that have this difference.
    """
    b = -better - worse + (2 * n - better + worse) * difference
    c = -worse * difference * (1 - difference)
    share_worse = (np.sqrt(np.maximum(b**2 - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * share_worse + difference * (1 - difference))
    return (better - worse - n * difference) / np.sqrt(np.maximum(variance, 1e-12))
