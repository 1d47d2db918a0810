"""How a quantity changes over the steps of a run, with a 95% interval that allows for neighbours being alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

BLOCKS = 20


class Slope(NamedTuple):
    """Change per 1000 steps with its 95% interval, and the means of the first and last block."""

    per_1000_steps: float
    low: float
    high: float
    first: float
    last: float


def slope(steps: Sequence[float], values: Sequence[float], blocks: int = BLOCKS) -> Slope:
    """Least squares through the means of consecutive blocks of equally many samples.

    Consecutive samples are alike (a level of memory, a length of completions), so their residuals would give too narrow an
    interval; the means of long blocks are nearly independent.

    Args:
        steps: (n,) step of each sample, rising; n at least 2 a block.
        values: (n,).
        blocks: number of blocks, at least 3.
    """
    x = np.array([part.mean() for part in np.array_split(np.asarray(steps, float), blocks)])
    y = np.array([part.mean() for part in np.array_split(np.asarray(values, float), blocks)])
    fit = stats.linregress(x, y)
    half = stats.t.ppf(0.975, blocks - 2) * fit.stderr
    change, low, high = (1000 * each for each in (fit.slope, fit.slope - half, fit.slope + half))
    return Slope(float(change), float(low), float(high), float(y[0]), float(y[-1]))
