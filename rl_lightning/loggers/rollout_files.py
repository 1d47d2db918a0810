"""Write every sampled completion to Parquet files that are complete at every moment.

`pd.read_parquet("outputs/<run>/rollouts")` reads them all: while the run continues, after its end, and after a kill. A file holds a
chunk of steps under a name that does not change, `rollouts_000001-000020.parquet`, with one row group per step. At the end of
each step the chunk's file is rewritten with one more step, under a hidden name, and renamed over the old one. This rename is the
only change that a reader can see, so no step is ever there twice or in part, and no finished step is missing. (With one file per
step, merged into chunks later, there would be a moment at which a step is in two files, or in none.) Rewriting costs the square
of a chunk's length, which is why chunks are short.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rl_lightning.checkpointing.atomic_files import newest, write_atomically

SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("task", pa.string()),
        ("index", pa.int64()),
        ("level", pa.int64()),
        ("group", pa.int64()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("answer", pa.string()),
        ("expected", pa.string()),
        ("exact", pa.float32()),
        ("partial", pa.float32()),
        ("format", pa.bool_()),
        ("failure", pa.string()),
        ("reward", pa.float32()),
        ("advantage", pa.float32()),
        ("kept", pa.bool_()),
        ("tokens", pa.int64()),
        ("mean_logprob", pa.float32()),
        ("entropy", pa.float32()),
        ("finish", pa.string()),
        ("logprob_mismatch", pa.float32()),
    ]
)
"""docs/rollouts.md says what the columns mean."""

_NAME = re.compile(r"rollouts_(\d+)-(\d+)\.parquet")


class RolloutFiles:
    """Writer of a run's `rollouts/`.

    Args:
        directory: where the files go.
        steps_per_file: steps in one file; at least 1.
    """

    def __init__(self, directory: Path, steps_per_file: int) -> None:
        self._directory, self._steps_per_file = directory, steps_per_file
        self._path: Path | None = None
        self._chunk: list[pa.Table] = []

    def append(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Add a step after all earlier ones. When this returns, it is on the disk.

        Args:
            step: the optimizer step at its end.
            rows: one dict per completion, with the columns of SCHEMA except `step`.
        """
        first = (step - 1) // self._steps_per_file * self._steps_per_file + 1
        path = self._directory / f"rollouts_{first:06d}-{first + self._steps_per_file - 1:06d}.parquet"
        if path != self._path:
            self._path, self._chunk = path, _read(path) if path.exists() else []  # left by the run that is resumed
        self._chunk.append(pa.Table.from_pylist([{"step": step, **row} for row in rows], SCHEMA))
        _write(path, self._chunk)


def drop_steps_after(directory: Path, step: int) -> None:
    """Delete the steps after `step`: a run resumed there makes them again, the same."""
    for path in directory.glob("rollouts_*.parquet"):
        found = _NAME.fullmatch(path.name)
        if found is None or int(found[2]) <= step:
            continue
        chunk = _read(path) if int(found[1]) <= step else []
        kept = [table for table in chunk if table["step"][0].as_py() <= step]
        if not kept:
            path.unlink()
        elif len(kept) < len(chunk):
            _write(path, kept)


def _read(path: Path) -> list[pa.Table]:
    """Read a file as one table per step."""
    with pq.ParquetFile(newest(path)) as file:
        return [_completed(file.read_row_group(number)) for number in range(file.num_row_groups)]


def _completed(table: pa.Table) -> pa.Table:
    """Add columns of nulls for those that a file of an older version does not have."""
    for column in SCHEMA:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(SCHEMA.names)


def _write(path: Path, chunk: Sequence[pa.Table]) -> None:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd", compression_level=1) as writer:
        for table in chunk:
            writer.write_table(table)
    write_atomically(path, sink.getvalue().to_pybytes())
