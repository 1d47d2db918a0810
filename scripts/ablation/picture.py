"""Draw every variant's accuracy curve next to the reference's: over time on the left, over completions on the right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ablation.results import Result, Results
from ablation.tables import equal_completions
from rl_lightning.statistics import mean_over_runs

_ACROSS = 3
"""Variants side by side, once for each axis."""

_POINTS = 120
"""Number of points at which curves are interpolated."""

_AXES = {"seconds": "seconds of training", "sampled": "completions sampled"}


def draw(results: Results, picture: Path) -> None:
    """One pair of panels per variant: its mean over the seeds and the 95% band, and the reference's in grey.

    Args:
        results: by variant, the reference first.
        picture: the file to write; its ending chooses the format.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first, *others = results
    shown = others or [first]
    across = min(_ACROSS, len(shown))
    down = math.ceil(len(shown) / across)
    ends = {"seconds": results[first][0].settings["seconds"], "sampled": equal_completions(results)}
    figure = plt.figure(figsize=(1 + 4.2 * across, 0.9 + 1.9 * down), layout="constrained")
    halves: Any = figure.subfigures(1, 2)
    for half, (axis, title) in zip(halves, _AXES.items(), strict=True):
        half.supxlabel(title, fontsize=9)
        panels = half.subplots(down, across, sharex=True, sharey=True, squeeze=False)
        for place, panel in enumerate(panels.flat):
            if place >= len(shown):
                panel.set_visible(False)
                continue
            _draw_curve(panel, results[first], axis, ends[axis], "tab:gray")
            if others:
                _draw_curve(panel, results[shown[place]], axis, ends[axis], "tab:blue")
            panel.set_title(shown[place], fontsize=9)
            panel.set(ylim=(0, 1.03), xlim=(0, ends[axis]))
            panel.tick_params(labelsize=7, labelbottom=place + across >= len(shown))
            panel.locator_params(axis="x", nbins=4)
            panel.grid(alpha=0.3)
    figure.suptitle(f"Held-out accuracy: mean over seeds and its 95% interval; {first} in grey", fontsize=10)
    figure.savefig(picture, dpi=110)
    plt.close(figure)


def _draw_curve(panel: Any, runs: Sequence[Result], axis: str, end: float, colour: str) -> None:
    grid = np.linspace(0, end, _POINTS)
    means = [mean_over_runs([result.accuracy(axis, at) for result in runs], 0, 1) for at in grid]
    panel.plot(grid, [m.mean for m in means], color=colour, linewidth=1.8)
    if len(runs) > 1:  # one run has no band
        panel.fill_between(grid, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.22, linewidth=0)
