"""What goes on in the laboratory: a bar for all runs and one for each that is under way, and a line for each that has ended."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from laboratory.courses import Run


class Board:
    """A context; threads may write on it. Where there is no terminal only the lines are written.

    Args:
        runs: how many there are to do.
    """

    def __init__(self, runs: int) -> None:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[said]}"))
        console = Console()
        self._progress = Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        )
        self._runs, self._ended = runs, 0
        self._all = self._progress.add_task("all runs", total=runs, said=f"0 of {runs}")
        self._bars: dict[str, TaskID] = {}
        self._first: dict[str, dict[str, Any]] = {}
        self._latest: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Board:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, run: Run) -> None:
        """It is under way."""
        self._bars[run.label] = self._progress.add_task(run.label, total=run.settings["seconds"], said="starting")

    def evaluated(self, run: Run, evaluation: dict[str, Any]) -> None:
        """It has been evaluated."""
        self._first.setdefault(run.label, evaluation)
        self._latest[run.label] = evaluation
        said = f"step {evaluation['step']}, accuracy {evaluation['accuracy']:.3f}"
        self._progress.update(self._bars[run.label], completed=evaluation["seconds"], said=said)

    def end(self, run: Run) -> None:
        """It has come to its end."""
        first, last = self._first[run.label], self._latest[run.label]
        figures = f"{first['accuracy']:.3f} to {last['accuracy']:.3f}"
        self._close(run, f"{figures} in {last['step']} steps, {last['seconds']:.0f} s, {last['sampled']:,} completions")

    def failed(self, run: Run, why: str) -> None:
        """It has not."""
        self._close(run, f"FAILED: {why}")

    def _close(self, run: Run, text: str) -> None:
        self._ended += 1
        self._progress.remove_task(self._bars.pop(run.label))
        self._progress.update(self._all, completed=self._ended, said=f"{self._ended} of {self._runs}")
        self._progress.console.out(f"{run.label}: {text}", highlight=False)
