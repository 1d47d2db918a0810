"""Draw a forest plot of a comparison: one row for each group of problems, one mark with its interval for each contender."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl_lightning.checkpointing.atomic_files import write_atomically

_MARKS = "osD^vP*X"


def draw(comparison: Mapping[str, Any], picture: Path) -> None:
    """Draw the paired differences of accuracy to the reference, with their 95% intervals.

    Args:
        comparison: as `compare` returns it, with at least two contenders.
        picture: the file to write; its ending chooses the format.
    """
    from matplotlib.figure import Figure

    others = comparison["contenders"][1:]
    names = list(others[0]["groups"])
    height = 1.6 + 0.2 * len(others) + 0.22 * len(names) * (len(others) + 0.8)
    figure = Figure(figsize=(8, height), layout="constrained")
    axis = figure.subplots()
    for place, contender in enumerate(others):
        shift = 0.8 * ((place + 0.5) / len(others) - 0.5)
        found = [contender["groups"][name]["difference"] for name in names]
        points = [100 * d["mean"] for d in found]
        reach = [[100 * (d["mean"] - d["low"]) for d in found], [100 * (d["high"] - d["mean"]) for d in found]]
        mark = _MARKS[place % len(_MARKS)]
        label = f"{contender['label']} (step {contender['step']})"
        axis.errorbar(points, [n + shift for n in range(len(names))], xerr=reach, fmt=mark, capsize=3, label=label)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(names)), [f"{name} ({others[0]['groups'][name]['n']})" for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_xlabel(f"difference of accuracy to {comparison['reference']} in percentage points, 95% intervals")
    axis.set_title("Paired differences on the same problems")
    axis.grid(axis="x", alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=picture.suffix.removeprefix(".") or None, dpi=110)
    write_atomically(picture, drawn.getvalue())
