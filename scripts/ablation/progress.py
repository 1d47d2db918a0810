"""Show the progress of an experiment: a bar for all runs, one for each that is in progress, and a line for each that has ended."""

from __future__ import annotations

from typing import Any

from rich import progress as rich_progress
from rich.console import Console

from ablation.experiments import Run


class Progress:
    """A context manager whose methods any thread may call. Where there is no terminal only the lines are written.

    Args:
        runs: number of runs to do.
    """

    def __init__(self, runs: int) -> None:
        console = Console()
        self._bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(),
            rich_progress.TextColumn("{task.fields[status]}"),
            rich_progress.TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._runs, self._ended = runs, 0
        self._all = self._bars.add_task("all runs", total=runs, status=f"0 of {runs}")
        self._bar_of: dict[str, rich_progress.TaskID] = {}
        self._first: dict[str, dict[str, Any]] = {}
        self._latest: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, run: Run) -> None:
        """A run's process has been started."""
        self._bar_of[run.label] = self._bars.add_task(run.label, total=run.settings["seconds"], status="starting")

    def evaluated(self, run: Run, evaluation: dict[str, Any]) -> None:
        """A run has been evaluated; see `ablation.run.Evaluator`."""
        self._first.setdefault(run.label, evaluation)
        self._latest[run.label] = evaluation
        status = f"step {evaluation['step']}, accuracy {evaluation['accuracy']:.3f}"
        self._bars.update(self._bar_of[run.label], completed=evaluation["seconds"], status=status)

    def finished(self, run: Run) -> None:
        """A run has left its result."""
        first, last = self._first[run.label], self._latest[run.label]
        accuracies = f"{first['accuracy']:.3f} to {last['accuracy']:.3f}"
        self._close(
            run, f"{accuracies} in {last['step']} steps, {last['seconds']:.0f} s, {last['sampled']:,} completions"
        )

    def failed(self, run: Run, why: str) -> None:
        """A run has ended without a result."""
        self._close(run, f"FAILED: {why}")

    def _close(self, run: Run, text: str) -> None:
        self._ended += 1
        self._bars.remove_task(self._bar_of.pop(run.label))
        self._bars.update(self._all, completed=self._ended, status=f"{self._ended} of {self._runs}")
        self._bars.console.out(f"{run.label}: {text}", highlight=False)
