"""The learning curve of a run as a text table and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl_lightning.checkpointing.atomic_files import write_atomically
from rl_lightning.report.run_files import evaluations, series

RIGHT, OTHER = "#0b6044", "#1f55d6"
"""The page's colours of right answers, and of what is neither right nor wrong."""


def table(run: Path) -> str:
    """Format held-out accuracy and mean completion length of every evaluation as text."""
    lines = ["  step  accuracy   tokens"]
    for evaluation in evaluations(run):
        overall = evaluation["overall"]
        bar = "#" * round(40 * overall["accuracy"])
        lines.append(f"{evaluation['step']:6}     {overall['accuracy']:.3f} {overall['mean_tokens']:8.1f}  {bar}")
    gain = overall.get("gain")
    if gain is not None:
        lines.append(
            f"gain {gain['mean']:+.3f}, 95% interval {gain['low']:+.3f} to {gain['high']:+.3f}, "
            f"on {overall['n']} problems that training never saw"
        )
    return "\n".join(lines)


def draw(run: Path, picture: Path) -> None:
    """Draw three panels over optimizer steps: held-out accuracy, share of right samples, length of samples.

    Where the run has logged nothing, the panel says so.

    Args:
        run: the run directory.
        picture: the file to write; its ending chooses the format.
    """
    from matplotlib.figure import Figure  # not pyplot, whose backend in a notebook is the user's

    found = evaluations(run) if any((run / "eval_results").glob("eval_step_*.json")) else []
    figure = Figure(figsize=(13, 3.9), layout="constrained")
    accuracy, reward, length = figure.subplots(1, 3)
    if found:
        _draw_accuracy(accuracy, found)
    how = "" if not found or found[-1].get("samples") else " (greedy)"
    accuracy.set(title=f"Held-out problems answered exactly{how}", ylim=(0, 1.03))
    for name, label, colour in (("reward/exact", "exactly right", RIGHT), ("reward/well_formed", "well formed", OTHER)):
        reward.plot(*series(run, name), label=label, color=colour)
    reward.set(title="Training samples: share", ylim=(0, 1.03))
    reward.legend(fontsize=7, loc="lower right")
    length.plot(*series(run, "completion/tokens"), color=OTHER)
    length.set(title="Training samples: tokens per completion")
    length.set_ylim(bottom=0)
    for axis in (accuracy, reward, length):
        axis.set_xlabel("optimizer step")
        axis.grid(alpha=0.3)
        if not any(len(line.get_xdata()) for line in axis.lines):
            axis.text(0.5, 0.5, "not logged", transform=axis.transAxes, ha="center", color="grey")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=picture.suffix.removeprefix(".") or None, dpi=110)
    write_atomically(picture, drawn.getvalue())


def _draw_accuracy(axis: Any, found: Sequence[dict[str, Any]]) -> None:
    """Draw each task as a thin line, and all problems as a thick one with 95% intervals."""
    steps, overall = [e["step"] for e in found], [e["overall"] for e in found]
    for task in found[0]["tasks"]:
        axis.plot(steps, [e["tasks"][task]["accuracy"] for e in found], linewidth=1, alpha=0.8, label=task)
    axis.errorbar(
        steps,
        [o["accuracy"] for o in overall],
        [[o["accuracy"] - o["low"] for o in overall], [o["high"] - o["accuracy"] for o in overall]],
        color="black",
        linewidth=2.5,
        capsize=3,
        label=f"all {overall[0]['n']} (95%)",
    )
    axis.legend(fontsize=7, loc="lower right")
