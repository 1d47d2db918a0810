"""Read rows, as column to value, from a JSONL, CSV or Parquet file, or from a data set of the Hugging Face hub."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from rl_lightning.environments.questions.settings import FILES
from rl_lightning.types import UserError

LONGEST_LINE = 10_000_000
"""Characters of a line at most. A longer one is no row, but the file something else, for example one JSON array."""

Row = dict[str, Any]
"""Column to value."""


class Rows(Protocol):
    """The rows of a file or data set.

    Attributes:
        name: of the file or data set, for messages.
        unit: what is counted, "line" or "row", from 1.
    """

    name: str
    unit: str

    def digest(self) -> str | None:
        """A hash of the content; None where it is not known before it is read."""
        ...

    def __iter__(self) -> Iterator[tuple[int, Row | BadRow]]:
        """Each row with its number.

        Raises:
            UserError: they cannot be read further.
        """
        ...


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    why: str


class FileRows:
    """The rows of a file.

    Args:
        path: the file; its name ends in one of FILES.

    Raises:
        UserError: there is no such file, or it is of another kind.
    """

    def __init__(self, path: str) -> None:
        self.name, self._file = path, Path(path).expanduser().absolute()
        self.unit = "row" if self._file.suffix.lower() == ".parquet" else "line"
        if self._file.suffix.lower() not in FILES:
            hint = "; of one JSON array, write each element on a line of its own" if path.endswith(".json") else ""
            raise UserError(f"{path}: must end in {', '.join(FILES)}{hint}")
        if not self._file.is_file():
            raise UserError(f"{path}: {'Is a directory' if self._file.is_dir() else 'No such file or directory'}")

    def digest(self) -> str:
        """The SHA-256 of the file."""
        try:
            with self._file.open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror}") from error

    def __iter__(self) -> Iterator[tuple[int, Row | BadRow]]:
        """Each row with its number.

        Raises:
            UserError: the file cannot be read further.
        """
        read = {".jsonl": self._jsonl, ".csv": self._csv, ".parquet": self._parquet}
        try:
            yield from read[self._file.suffix.lower()]()
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror or error}") from error

    def _lines(self) -> Iterator[tuple[int, str | BadRow]]:
        with self._file.open("rb") as lines:
            number = 0
            while line := lines.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    self._refuse(number, f"longer than {LONGEST_LINE / 1e6:g} MB; each row is a line of its own")
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    yield number, BadRow(f"not UTF-8 (byte {error.start + 1} of the line)")

    def _jsonl(self) -> Iterator[tuple[int, Row | BadRow]]:
        for number, line in self._lines():
            if isinstance(line, BadRow):
                yield number, line
            elif line.strip():
                yield number, _json_row(line)

    def _csv(self) -> Iterator[tuple[int, Row | BadRow]]:
        lines = csv.reader(self._readable())
        try:
            header = next(lines, [])
            if len(header) == 1 and ";" in header[0]:
                self._refuse(1, "the separator is a semicolon; save it with commas")
            if twice := sorted({name for name in header if header.count(name) > 1}):
                self._refuse(1, f"two columns have the name {twice[0]!r}")
            for fields in lines:
                if fields:
                    whole = len(fields) == len(header)
                    bad = BadRow(f"{len(fields)} fields, but the first line names {len(header)}")
                    yield lines.line_num, dict(zip(header, fields, strict=True)) if whole else bad
        except csv.Error as error:
            self._refuse(lines.line_num, f"not CSV ({error})")

    def _readable(self) -> Iterator[str]:
        for number, line in self._lines():
            if isinstance(line, BadRow):  # where a row of CSV ends is not known any more
                self._refuse(number, line.why)
            yield line

    def _parquet(self) -> Iterator[tuple[int, Row | BadRow]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        number = 0
        try:
            with pq.ParquetFile(self._file) as file:
                for batch in file.iter_batches(batch_size=1000):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
        except (
            pa.ArrowException,
            OSError,
            ValueError,
            OverflowError,
            TypeError,
        ) as error:  # of what Python has no value for
            what = f"cannot be read after row {number}" if number else "not a Parquet file"
            raise UserError(f"{self.name}: {what} ({' '.join(str(error).split())[:200]})") from error

    def _refuse(self, line: int, why: str) -> NoReturn:
        raise UserError(f"{self.name}: line {line}: {why}")


def _json_row(line: str) -> Row | BadRow:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        return BadRow(f"not JSON ({error.msg}, at character {error.pos + 1})")
    except (RecursionError, ValueError) as error:  # nested thousands deep; a number of thousands of digits
        return BadRow(f"not JSON ({error})")
    return row if isinstance(row, dict) else BadRow("not an object with columns")


class HubRows:
    """The rows of a data set of the Hugging Face hub, or of a directory, by the package datasets.

    Args:
        path: its name.
        subset: its configuration; empty for its default.
        split: the split.
        revision: commit or tag; empty for the newest.
        streamed: whether only those rows are downloaded that are read.

    Raises:
        UserError: the package is missing, or the data set cannot be loaded.
    """

    def __init__(self, path: str, subset: str, split: str, revision: str, streamed: bool) -> None:
        self.name, self.unit, self._streamed = f"{path} ({split})", "row", streamed
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise UserError(
                f"{path}: is no {', '.join(FILES)}; data sets of the hub need the package datasets: pip install -e .[hub]"
            ) from error
        try:
            self._rows: Any = datasets.load_dataset(
                path, name=subset or None, split=split, revision=revision or None, streaming=streamed
            )
        except Exception as error:  # by network, hub, loader and file system, with types of their own
            raise UserError(f"{path}: {' '.join(str(error).split())[:400]}") from error

    def digest(self) -> str | None:
        """A hash of all rows; None for a streamed data set, which is not known before it is read."""
        if self._streamed:
            return None
        import pyarrow as pa

        found = _Hash()
        for table in self._rows.with_format("arrow").iter(batch_size=10_000):
            with pa.ipc.new_stream(pa.PythonFile(found, mode="w"), table.schema) as whole:
                whole.write_table(table)
        return found.sha256.hexdigest()

    def __iter__(self) -> Iterator[tuple[int, Row | BadRow]]:
        """Each row with its number.

        Raises:
            UserError: the data set cannot be read further.
        """
        number = 0
        try:
            for row in self._rows:
                number += 1
                yield number, row
        except Exception as error:  # of network, hub and file formats
            why = error.__cause__ or error
            raise UserError(
                f"{self.name}: cannot be read after row {number} ({' '.join(str(why).split())[:300]})"
            ) from error


class _Hash(io.RawIOBase):
    """A file that keeps the SHA-256 of what is written."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        return len(content)
