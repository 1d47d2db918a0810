"""Every sampled completion as Parquet, whole at every moment.

`pd.read_parquet("outputs/<run>/rollouts")` reads all of it, while the run goes on, after its end, and after a kill. A file holds a
chunk of steps under a name that does not change, `rollouts_000001-000016.parquet`, with a row group a step. At the end of each
step the chunk's file is written again with one step more, under a hidden name, and renamed over the old one: the only change
that a reader can see is that one rename, so no step is ever there twice or half, and none that has ended is missing. (A file a
step, gathered into chunks afterwards, has a moment at which a step is in two files, or in none.) Writing a chunk again costs the
square of its length, which is why chunks are short.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rl_lightning.whole_files import write_whole

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
        ("tokens", pa.int64()),
        ("mean_logprob", pa.float32()),
        ("entropy", pa.float32()),
        ("finish", pa.string()),
        ("gap", pa.float32()),
    ]
)
"""What the columns mean is in docs/rollouts.md."""

_NAME = re.compile(r"rollouts_(\d+)-(\d+)\.parquet")


class RolloutFiles:
    """The writer of a run's `rollouts/`.

    Args:
        directory: where the files go.
        steps_per_file: steps of a chunk; at least 1.
    """

    def __init__(self, directory: Path, steps_per_file: int) -> None:
        self._directory, self._steps_per_file = directory, steps_per_file
        self._path: Path | None = None
        self._chunk: list[pa.Table] = []

    def append(self, step: int, rows: Sequence[dict[str, Any]]) -> None:
        """Add a step, later than those that are there. When this returns, it is on the disk.

        Args:
            step: the optimizer step that it ended at.
            rows: a dict a completion with the columns of SCHEMA, but for `step`.
        """
        first = (step - 1) // self._steps_per_file * self._steps_per_file + 1
        path = self._directory / f"rollouts_{first:06d}-{first + self._steps_per_file - 1:06d}.parquet"
        if path != self._path:
            self._path, self._chunk = path, _read(path) if path.exists() else []  # left by the run that goes on
        self._chunk.append(pa.Table.from_pylist([{"step": step, **row} for row in rows], SCHEMA))
        _write(path, self._chunk)


def forget_after(directory: Path, step: int) -> None:
    """Drop the steps after `step`: a run that goes on from there will make them again, the same."""
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
    """A table a step."""
    with pq.ParquetFile(path) as file:
        return [_completed(file.read_row_group(number)) for number in range(file.num_row_groups)]


def _completed(table: pa.Table) -> pa.Table:
    """With nulls in the columns that a file of an older version has not."""
    for column in SCHEMA:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(len(table), column.type))
    return table.select(SCHEMA.names)


def _write(path: Path, chunk: Sequence[pa.Table]) -> None:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd", compression_level=1) as writer:
        for table in chunk:
            writer.write_table(table)
    write_whole(path, sink.getvalue().to_pybytes())
