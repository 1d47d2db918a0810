"""Questions and answers of one's own: from a file (JSONL, CSV, Parquet), or from a data set of the hub."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import regex

from rl_lightning.environments.environment import Environment
from rl_lightning.environments.verifier import Verifier
from rl_lightning.environments.verifiers import ExactText
from rl_lightning.types import Problem, UserError

log = logging.getLogger(__name__)

_SUFFIXES = (".jsonl", ".csv", ".parquet")
_PATTERN_SECONDS = 1.0


class QuestionFile(Environment):
    """The questions of a file, each row with a question and its answer. Each is trained on once in an epoch.

    Of rows whose questions differ only in white space, case or punctuation after a word, the first counts; the others are named.

    Args:
        path: a .jsonl, .csv or .parquet file; a relative one is looked for in the working directory.
        question: the column of the question.
        answer: the column of the answer.
        thinking: the column of the working, for worked examples; empty for none.
        answer_pattern: a regular expression with a group (?P<answer>…) that finds the answer in its column, such as
            "#### (?P<answer>.+)" for GSM8K; empty: the whole text.
        where: column to the value that a row must have to be used.
        verifier: decides whether an answer is right.

    Raises:
        UserError: the file cannot be read, a column is missing, an answer is not found or not one that the verifier accepts.
    """

    def __init__(
        self,
        path: str,
        question: str = "question",
        answer: str = "answer",
        thinking: str = "",
        answer_pattern: str = "",
        where: dict[str, Any] | None = None,
        verifier: Verifier = ExactText(),  # noqa: B008
    ) -> None:
        self.path, self.verifier = path, verifier
        self._columns, self._where = (question, answer, thinking), dict(where or {})
        self._pattern = _answer_pattern(answer_pattern)
        file = Path(path).expanduser()
        self._problems = tuple(self._read(file))
        self.size = len(self._problems)
        if not self._problems:
            raise UserError(f"{path}: no rows" + (f" with {self._where}" if self._where else ""))
        self.config = {
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "columns": [question, answer, thinking],
            "answer_pattern": answer_pattern,
            "where": self._where,
            "verifier": f"{type(verifier).__qualname__} {vars(verifier)}",
        }

    def problem(self, seed: int) -> Problem:
        """The question with that number."""
        return self._problems[seed]

    def verify(self, problem: Problem, answer: str) -> float:
        """See the verifier."""
        return self.verifier(str(problem.expected), answer)

    def explain(self, problem: Problem, answer: str) -> str:
        """See the verifier."""
        return self.verifier.explain(str(problem.expected), answer)

    def thinking(self, problem: Problem) -> str | None:
        """The row's working."""
        return None if problem.payload is None else str(problem.payload)

    def check_settings(self, settings: Mapping[str, Any], where: str) -> None:
        """A file has no levels."""
        raise UserError(f"{where}: a file has no levels; make one task of each difficulty")

    def describe(self) -> str:
        """The file, and how many questions it has."""
        return f"{self.path}: {self.size} questions, verified by {type(self.verifier).__name__}"

    def _read(self, file: Path) -> Iterator[Problem]:
        (question, answer, thinking), first = self._columns, dict[str, int]()
        repeated: list[str] = []
        for number, row in enumerate(_rows(file), start=1):
            missing = [c for c in (question, answer, thinking, *self._where) if c and row.get(c) is None]
            if missing:
                raise UserError(f"{file}: row {number} has no {missing[0]!r}; it has {', '.join(map(str, row))}")
            if any(row[column] != value for column, value in self._where.items()):
                continue
            asked, expected = str(row[question]).strip(), self._expected(file, number, str(row[answer]))
            if (same := first.setdefault(_without_dress(asked), number)) < number:
                repeated.append(f"row {number} of row {same}")
                continue
            yield Problem(asked, expected, payload=str(row[thinking]) if thinking else None)
        if repeated:
            more = f" and {len(repeated) - 3} more" if len(repeated) > 3 else ""
            log.warning(f"{file}: questions that repeat an earlier one are left out: {', '.join(repeated[:3])}{more}")

    def _expected(self, file: Path, number: int, text: str) -> str:
        """The answer that a row's text has, which the verifier must accept."""
        if self._pattern is not None:
            found = self._pattern.search(text, timeout=_PATTERN_SECONDS)
            if found is None:
                raise UserError(f"{file}: row {number}: answer_pattern finds nothing in {text[-60:]!r}")
            text = found["answer"]
        text = text.strip()
        try:
            right = self.verifier(text, text)
        except Exception as error:
            raise UserError(f"{file}: row {number}: {type(self.verifier).__name__}: {error}") from error
        if right < 1:
            raise UserError(
                f"{file}: row {number}: {type(self.verifier).__name__} does not accept {text[:60]!r} as its own answer"
            )
        return text


def _without_dress(question: str) -> str:
    """The question without what makes no other question of it; signs between numbers do."""
    return " ".join(re.sub(r"[.,;:!?'\"]+(?=\s|$)", "", question.casefold()).split())


def _answer_pattern(pattern: str) -> Any:
    if not pattern:
        return None
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise UserError(f"answer_pattern: {pattern!r} is not a regular expression ({error})") from error
    if "answer" not in compiled.groupindex:
        raise UserError(f"answer_pattern: {pattern!r} has no group (?P<answer>…)")
    return compiled


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, as column to value."""
    if file.suffix not in _SUFFIXES:
        raise UserError(f"{file}: must end in {', '.join(_SUFFIXES)}")
    try:
        if file.suffix == ".parquet":
            yield from _parquet_rows(file)
            return
        with file.open(encoding="utf-8-sig", newline="") as lines:
            if file.suffix == ".csv":
                yield from csv.DictReader(lines)
                return
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _json_row(file, number, line)
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read ({error})") from error


def _json_row(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: line {number} is not JSON ({error.msg})") from error
    if not isinstance(row, dict):
        raise UserError(f"{file}: line {number} is not an object with columns")
    return row


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not file.is_file():
        raise UserError(f"{file}: No such file or directory")
    try:
        yield from pq.read_table(file).to_pylist()
    except pa.ArrowInvalid as error:
        raise UserError(f"{file}: not a Parquet file") from error
