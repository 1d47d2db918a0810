"""Studentised paired bootstrap: the 95% interval of a mean difference of partial scores.

With skewed scores and a few dozen problems the plain (percentile) bootstrap is clearly too narrow, and this one nearly right.
scipy.stats.bootstrap has neither studentised intervals nor strata.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl_lightning.statistics.intervals import Array, Interval, strata, variance_of_mean

RESAMPLES = 2000


def bootstrap_interval(
    differences: Array, tasks: Sequence[object], resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Compute the bootstrap-t 95% interval of a mean paired difference (Efron and Tibshirani, 1993, section 12.5).

    Problems are resampled within each task, and each resample's distance from the observed mean is measured in the resample's
    own standard errors.

    Args:
        differences: (…, n) in [-1, 1], after minus before; n of 2 or more.
        tasks: (n,) labels.
        resamples: number of resamples.
        seed: seed of the resamples. They are the same for the same seed, so the interval is a function of the data.
    """
    n, parts, rng = differences.shape[-1], strata(tasks), np.random.default_rng(seed)
    mean, variance = np.zeros((2, *differences.shape[:-1], resamples))
    for part in parts:
        size = len(part)
        counts = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)
        centred = differences[..., part] - differences[..., part].mean(axis=-1, keepdims=True)
        sums = centred @ counts.T
        mean += sums / n
        variance += (centred**2 @ counts.T - sums**2 / size) * size / (size - 1) / n**2
    distance = mean / np.sqrt(np.maximum(variance, 1e-18))
    low, high = np.quantile(distance, [0.025, 0.975], axis=-1)
    middle, error = differences.mean(axis=-1), np.sqrt(variance_of_mean(differences, parts))
    return Interval(np.maximum(middle - high * error, -1.0), np.minimum(middle - low * error, 1.0))
