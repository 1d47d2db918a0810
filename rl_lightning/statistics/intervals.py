"""95% intervals of a share and of a paired difference, by inverting a test: they hold where the normal one does not, with few
problems or with shares near 0 and 1.

A suite is a fixed number of problems of each task, so chance has less room in it than in as many problems drawn from a mixture.
The intervals allow for that, and for values between 0 and 1, by the number of problems that would be as uncertain: the
effective size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Z = 1.959963984540054
"""97.5% quantile of the normal distribution."""

_HALVINGS = 32

Array = NDArray[np.float64]


class Interval(NamedTuple):
    """Ends of a 95% interval, each of the shape of the figure that they enclose."""

    low: Array
    high: Array


def strata(tasks: Sequence[object]) -> list[NDArray[np.intp]]:
    """The places of each task's problems. Tasks with one problem say nothing of their spread: then all are taken together.

    Args:
        tasks: (n,) labels.
    """
    labels = np.unique(np.asarray([str(task) for task in tasks]), return_inverse=True)[1]
    parts = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    return parts if min(map(len, parts)) > 1 else [np.arange(len(tasks))]


def variance_of_mean(values: Array, parts: list[NDArray[np.intp]]) -> Array:
    """Of the mean of a stratified sample.

    Args:
        values: (…, n).
        parts: the strata's places.

    Returns:
        (…,); 0 where n is 1.
    """
    n = values.shape[-1]
    if n == 1:
        return np.zeros(values.shape[:-1])
    total = sum(len(part) * values[..., part].var(axis=-1, ddof=1) for part in parts)
    return np.asarray(total) / n**2


def share_interval(values: Array, tasks: Sequence[object]) -> Interval:
    """Wilson's interval of a mean of values in [0, 1].

    Args:
        values: (…, n) 0 or 1, or a problem's share of right samples.
        tasks: (n,) labels; each task has its number of problems in every suite.
    """
    n, p = values.shape[-1], values.mean(axis=-1)
    size = _effective_size(n, variance_of_mean(values, strata(tasks)), p * (1 - p) / max(n - 1, 1))
    middle = (p + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * np.sqrt(p * (1 - p) / size + Z**2 / (4 * size**2))
    return Interval(np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0))


def paired_score_interval(differences: Array, tasks: Sequence[object]) -> Interval:
    """Tango's score interval of a mean paired difference (Statistics in Medicine 17, 1998).

    Tango's is for right and wrong. Other differences are taken in units of their typical size, and by their moments.

    Args:
        differences: (…, n) in [-1, 1], after minus before.
        tasks: (n,) labels.
    """
    n = differences.shape[-1]
    absolute = np.abs(differences).sum(axis=-1)
    unit = np.where(absolute > 0, (differences**2).sum(axis=-1) / np.where(absolute > 0, absolute, 1.0), 1.0)
    scaled = differences / unit[..., None]
    whole = variance_of_mean(scaled, [np.arange(n)])
    size = _effective_size(n, variance_of_mean(scaled, strata(tasks)), whole)
    mean, square = scaled.mean(axis=-1), (scaled**2).mean(axis=-1)
    low, high = _tango((square + mean) / 2 * size, (square - mean) / 2 * size, size)
    return Interval(np.maximum(low * unit, -1.0), np.minimum(high * unit, 1.0))


def _effective_size(n: int, variance: Array, reference: Array) -> Array:
    """Problems of which each is as uncertain as `reference` says that together are as uncertain as `variance` says; at least n.

    One problem's worth of variance is added to both: tasks that were all right and all wrong this time are not sure to be.
    """
    return n * np.maximum((reference + 1 / n**2) / (variance + 1 / n**2), 1.0)


def _tango(better: Array, worse: Array, n: Array) -> Interval:
    """The differences that the score test does not reject, given how many of n problems got better and worse: bisection, for
    both ends at once, between the end of the range and the difference found."""
    mean = (better - worse) / n
    side = np.array([-1.0, 1.0]).reshape(2, *[1] * mean.ndim)
    outside, inside = side + np.zeros_like(mean), side * 0 + mean
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        rejected = -side * _score(better, worse, n, middle) > Z
        outside, inside = np.where(rejected, middle, outside), np.where(rejected, inside, middle)
    return Interval(*(outside + inside) / 2)


def _score(better: Array, worse: Array, n: Array, difference: Array) -> Array:
    """Distance of the data from a true difference, in standard deviations under the likeliest shares that have it."""
    b = -better - worse + (2 * n - better + worse) * difference
    c = -worse * difference * (1 - difference)
    share_worse = (np.sqrt(np.maximum(b**2 - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * share_worse + difference * (1 - difference))
    return (better - worse - n * difference) / np.sqrt(np.maximum(variance, 1e-12))
