"""Lightning's CSV logger, made safe to resume with."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from lightning.fabric.loggers.csv_logs import _ExperimentWriter
from lightning.pytorch.loggers import CSVLogger

from rl_lightning.whole_files import write_whole


class MetricsCSV(CSVLogger):
    """Write `metrics.csv` straight into the run directory, and go on with one that is there.

    Lightning's own logger deletes the metrics of the run that is being resumed.

    Args:
        save_dir: the run directory.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", flush_logs_every_n_steps=1)

    @property
    def experiment(self) -> _ExperimentWriter:
        """Lightning's writer, appending."""
        if self._experiment is None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _AppendingWriter(self.log_dir)
        return self._experiment

    def go_on_after(self, step: int) -> None:
        """Drop the rows after `step`, which a run resumed there will write again."""
        path = Path(self.experiment.metrics_file_path)
        if not path.is_file():
            return
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        text = io.StringIO()
        writer = csv.DictWriter(text, self.experiment.metrics_keys)
        writer.writeheader()
        writer.writerows(row for row in rows if float(row["step"]) <= step)
        write_whole(path, text.getvalue())


class _AppendingWriter(_ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Take over the columns that are there, where Lightning would delete the file."""
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self.metrics_keys = next(csv.reader(file), [])
