"""Choose the rows of a file that can be used, have the verifier accept their answers, and write them into an index."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rl_lightning.environments.question_hash import question_hash, size
from rl_lightning.environments.questions.cells import Cells, Taken
from rl_lightning.environments.questions.checks import ExpectedAnswerChecks
from rl_lightning.environments.questions.index import IndexInfo
from rl_lightning.environments.questions.rows import Row, Rows
from rl_lightning.environments.questions.settings import Questions
from rl_lightning.types import UserError

log = logging.getLogger(__name__)

_MOST_BAD = 100
"""More rows that cannot be used are not looked for where they are refused."""

_NAMED = 3
"""So many rows are named of those that are left out."""

_SECONDS_SILENT = 15.0


class QuestionWriter:
    """Reads rows, and writes an index of those that can be used.

    Args:
        questions: which columns and rows count, and the verifier.
        reshape: makes of a row the one that is used.

    Raises:
        UserError: `answer_pattern` cannot be used.
    """

    def __init__(self, questions: Questions, reshape: Callable[[Row], Row]) -> None:
        self._of, self._cells = questions, Cells(questions, reshape)
        self._places, self._starts, self._lengths = array("Q"), array("Q"), array("I")
        self._hashes, self._answers, self._ascii = bytearray(), bytearray(), bytearray()
        self._left_out: list[str] = []

    def write(self, directory: Path, training: Rows, evaluation: Rows | None) -> IndexInfo:
        """Write the index's files.

        Raises:
            UserError: there is no row that can be used, or there are some that cannot.
        """
        unusable: set[int] = set()
        with (directory / "rows.jsonl").open("wb") as file:
            if evaluation is not None:
                unusable |= self._read(evaluation, file)
            first = len(self._places)
            unusable |= self._read(training, file)
        trained, held_out = self._kept(unusable, first, training, evaluation)
        of = f" with {self._of.where}" if self._of.where else " that can be used"
        for rows, found in ((evaluation, held_out), (training, trained)):
            if rows is not None and not len(found):
                alike = " and are not the evaluation's" if evaluation is not None and rows is training else ""
                raise UserError(f"{rows.name}: no rows{of}{alike}")
        return self._save(directory, np.concatenate([trained, held_out]), len(held_out))

    def _read(self, rows: Rows, file: BinaryIO) -> set[int]:
        """Write the rows of a source that are in use; the numbers of those whose answer the verifier does not accept."""
        bad, first, checks = _BadRows(), len(self._places), ExpectedAnswerChecks(self._of.verifier)
        most = math.inf if self._of.bad_rows == "leave_out" else _MOST_BAD
        said = time.monotonic()
        try:
            for place, row in rows:
                try:
                    if (taken := self._cells(row)) is not None:
                        checks.add(len(self._places), taken[1])
                        self._write(file, place, taken)
                except ValueError as error:
                    bad.add(place, str(error))
                if time.monotonic() - said > _SECONDS_SILENT:
                    said = time.monotonic()
                    log.warning(f"{rows.name}: read up to {rows.unit} {place:,}; this is done once")
                if len(self._places) - first == self._of.rows > 0 or bad.number + len(checks.wrong) > most:
                    break
            wrong = checks.finish()
        finally:
            checks.close()
        for number, why in wrong.items():
            bad.add(self._places[number], f"{type(self._of.verifier).__name__}: {why}")
        self._say_bad(rows, bad, refuse=self._of.bad_rows == "refuse" or checks.slow is not None)
        return set(wrong)

    def _write(self, file: BinaryIO, place: int, taken: Taken) -> None:
        question, answer, _ = taken
        length, is_ascii = size(question)
        self._places.append(place)
        self._starts.append(file.tell())
        self._lengths.append(length)
        self._ascii.append(is_ascii)
        self._hashes += question_hash(question)
        self._answers += hashlib.blake2b(answer.encode(), digest_size=8).digest()
        file.write(json.dumps(taken, ensure_ascii=False).encode() + b"\n")

    def _say_bad(self, rows: Rows, bad: _BadRows, refuse: bool) -> None:
        """Refuse the rows that cannot be used, or note that they are left out."""
        if not bad.number:
            return
        (place, why), *others = bad.first
        if refuse:
            more = f" (and {bad.number - 1} more, the next is {rows.unit} {others[0][0]})" if others else ""
            raise UserError(f"{rows.name}: {rows.unit} {place}: {why}{more}; mend it, or set bad_rows: leave_out")
        named = "; ".join(f"{rows.unit} {place}: {why}" for place, why in bad.first)
        self._left_out.append(
            f"{rows.name}: {bad.number} rows cannot be used and are left out ({named}{_more(bad.number)})"
        )

    def _kept(
        self, unusable: set[int], first: int, training: Rows, evaluation: Rows | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of the rows of training and of the evaluation's split, which are those below `first`: of the same question
        with the same answer the first one, and none of training whose question the evaluation's split has."""
        usable = np.setdiff1d(np.arange(len(self._places)), np.array(sorted(unusable), np.int64))
        questions, answers = (np.frombuffer(each, np.uint64)[usable] for each in (self._hashes, self._answers))
        of_evaluation = usable < first
        earlier = _earlier(questions)
        both = ~of_evaluation & of_evaluation[earlier]
        same = _earlier(np.stack([questions, answers, of_evaluation.astype(np.uint64)], axis=1))
        again = (same != np.arange(len(usable))) & ~both
        other = (earlier != np.arange(len(usable))) & ~again & ~both
        for rows, those in ((training, ~of_evaluation), (evaluation, of_evaluation)):
            self._note(rows, usable, again & those, same, "questions that repeat an earlier one are left out")
            self._note(
                rows, usable, other & those, earlier, "questions have another answer than an earlier, similar one"
            )
        self._note(training, usable, both, earlier, "questions of the evaluation are left out")
        kept = usable[~again & ~both]
        return kept[kept >= first], kept[kept < first]

    def _note(
        self, rows: Rows | None, usable: NDArray[np.int64], those: NDArray[np.bool_], of: NDArray[np.int64], what: str
    ) -> None:
        """Note rows with others that they are like."""
        if rows is not None and (found := np.flatnonzero(those)).size:
            named = ", ".join(
                f"{rows.unit} {self._places[usable[n]]} of {self._places[usable[of[n]]]}" for n in found[:_NAMED]
            )
            self._left_out.append(f"{rows.name}: {len(found)} {what}: {named}{_more(len(found))}")

    def _save(self, directory: Path, kept: NDArray[np.int64], evaluation: int) -> IndexInfo:
        starts = np.array(self._starts, np.uint64)[kept]
        np.save(directory / "starts.npy", starts)
        np.save(directory / "hashes.npy", np.frombuffer(self._hashes, np.uint64)[kept])
        np.save(directory / "length.npy", np.array(self._lengths, np.uint32)[kept])
        np.save(directory / "is_ascii.npy", np.frombuffer(self._ascii, bool)[kept])
        with (directory / "rows.jsonl").open("rb") as rows:
            found = hashlib.file_digest(rows, "sha256")
        found.update(starts.tobytes())
        return IndexInfo(len(kept), evaluation, found.hexdigest(), tuple(self._left_out))


class _BadRows:
    """How many rows cannot be used, and the first ones with the reason."""

    def __init__(self) -> None:
        self.number, self.first = 0, list[tuple[int, str]]()

    def add(self, place: int, why: str) -> None:
        """Count a row."""
        self.number += 1
        self.first = sorted([*self.first, (place, why)])[:_NAMED]


def _earlier(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each key the position at which it is first."""
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first[which.reshape(-1)]


def _more(number: int) -> str:
    return f" and {number - _NAMED} more" if number > _NAMED else ""
