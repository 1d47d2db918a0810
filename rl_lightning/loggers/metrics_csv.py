"""Log metrics to a CSV file that a killed run can continue."""

from __future__ import annotations

import csv
import io
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from rl_lightning.checkpointing.atomic_files import newest, patiently, place_waiting, write_atomically


class MetricsCSV(Logger):
    """Write `metrics.csv` into the run directory: one row whenever something is logged, immediately.

    Lightning's own CSV logger deletes the metrics of the run that is being resumed, buffers rows, and rewrites the file in place
    when there is a new column: a run that is killed at that moment loses them all.

    Args:
        save_dir: the run directory.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self._save_dir, self._columns = save_dir, ["step"]

    name, version = "", ""

    @property
    def save_dir(self) -> str:
        """The run directory."""
        return self._save_dir

    @property
    def path(self) -> Path:
        """The path of the CSV file."""
        return Path(self._save_dir) / "metrics.csv"

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds the hyperparameters."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; a new column rewrites the file, atomically. While another program holds it open, rows wait beside it."""
        place_waiting()
        row = {"step": step, **{k: float(v) for k, v in metrics.items() if k != "step"}}
        if new := [column for column in row if column not in self._columns]:
            rows = self._read()
            self._columns += sorted(new)
            write_atomically(self.path, self._text([*rows, row], header=True))
        else:
            try:
                patiently(lambda: self._append(row))
            except PermissionError:
                write_atomically(self.path, self._text([*self._read(), row], header=True))

    @rank_zero_only
    def resume_after(self, step: int) -> None:
        """Continue the existing file without its rows after `step`, which a run resumed there will write again."""
        rows = [row for row in self._read() if row["step"] <= step]
        if self.path.is_file():
            write_atomically(self.path, self._text(rows, header=True))

    def _append(self, row: dict[str, Any]) -> None:
        with newest(self.path).open("a", encoding="utf-8", newline="") as file:
            file.write(self._text([row]))

    def _read(self) -> list[dict[str, Any]]:
        """Read the complete rows of the file; a last one without a line end was truncated by a kill."""
        if not self.path.is_file():
            return []
        text = newest(self.path).read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        self._columns = list(reader.fieldnames or ["step"])
        return [{k: v if k != "step" else int(v) for k, v in row.items()} for row in reader]

    def _text(self, rows: list[dict[str, Any]], header: bool = False) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
