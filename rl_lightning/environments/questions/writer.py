"""Choose the rows of a file that can be used, have the verifier accept their answers, and write them into an index."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rl_lightning.environments.question_hash import most_tokens, question_hash
from rl_lightning.environments.questions.cells import Cells, Taken
from rl_lightning.environments.questions.checks import ExpectedAnswerChecks
from rl_lightning.environments.questions.index import IndexInfo
from rl_lightning.environments.questions.rows import Row, Rows
from rl_lightning.environments.questions.settings import Questions
from rl_lightning.types import UserError

_MOST_BAD = 100
"""More rows that cannot be used are not looked for where they are refused."""


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
        self._places, self._starts = array("Q"), array("Q")
        self._hashes, self._most_tokens = bytearray(), array("I")
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
        for rows, found in ((training, trained), (evaluation, held_out)):
            if rows is not None and not len(found):
                raise UserError(
                    f"{rows.name}: no rows" + (f" with {self._of.where}" if self._of.where else " that can be used")
                )
        return self._save(directory, np.concatenate([trained, held_out]), len(held_out))

    def _read(self, rows: Rows, file: BinaryIO) -> set[int]:
        """Write the rows of a source that are in use; the numbers of those whose answer the verifier does not accept."""
        bad: list[tuple[int, str]] = []
        most = math.inf if self._of.bad_rows == "leave_out" else _MOST_BAD
        first, checks = len(self._places), ExpectedAnswerChecks(self._of.verifier)
        try:
            for place, row in rows:
                try:
                    if (taken := self._cells(row)) is not None:
                        checks.add(len(self._places), taken[1])
                        self._write(file, place, taken)
                except ValueError as error:
                    bad.append((place, str(error)))
                if len(self._places) - first == self._of.rows > 0 or len(bad) + len(checks.wrong) > most:
                    break
            wrong = checks.finish()
        finally:
            checks.close()
        self._say_bad(rows, sorted(bad + [(self._places[number], why) for number, why in wrong.items()]))
        return set(wrong)

    def _write(self, file: BinaryIO, place: int, taken: Taken) -> None:
        self._places.append(place)
        self._starts.append(file.tell())
        self._hashes += question_hash(taken[0])
        self._most_tokens.append(most_tokens(taken[0]))
        file.write(json.dumps(taken, ensure_ascii=False).encode() + b"\n")

    def _say_bad(self, rows: Rows, bad: Sequence[tuple[int, str]]) -> None:
        """Refuse the rows that cannot be used, or note that they are left out."""
        if bad and self._of.bad_rows == "refuse":
            more = f" (and {len(bad) - 1} more, the next is {rows.unit} {bad[1][0]})" if len(bad) > 1 else ""
            raise UserError(
                f"{rows.name}: {rows.unit} {bad[0][0]}: {bad[0][1]}{more}; mend it, or set bad_rows: leave_out"
            )
        if bad:
            named = "; ".join(f"{rows.unit} {place}: {why}" for place, why in bad[:3])
            self._left_out.append(f"{rows.name}: {len(bad)} rows cannot be used and are left out ({named}{_more(bad)})")

    def _kept(
        self, unusable: set[int], first: int, training: Rows, evaluation: Rows | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The numbers of the rows of training and of the evaluation's split, which are those below `first`; each question once."""
        usable = np.setdiff1d(np.arange(len(self._places)), np.array(sorted(unusable), np.int64))
        hashes = np.frombuffer(self._hashes, np.uint64)[usable]
        _, earliest, which = np.unique(hashes, return_index=True, return_inverse=True)
        again = np.flatnonzero(earliest[which] != np.arange(len(usable)))
        pairs = [(usable[n], usable[earliest[which[n]]]) for n in again]
        within = [pair for pair in pairs if (pair[0] < first) == (pair[1] < first)]
        for rows, of_evaluation in ((training, False), (evaluation, True)):
            repeated = [pair for pair in within if (pair[0] < first) == of_evaluation]
            self._say_repeated(rows, rows, repeated, "questions that repeat an earlier one")
        both = [pair for pair in pairs if pair[1] < first <= pair[0]]
        self._say_repeated(training, evaluation, both, "questions of the evaluation")
        kept = np.delete(usable, again)
        return kept[kept >= first], kept[kept < first]

    def _say_repeated(
        self, rows: Rows | None, earlier: Rows | None, pairs: Sequence[tuple[int, int]], what: str
    ) -> None:
        if pairs and rows is not None and earlier is not None:
            named = ", ".join(
                f"{rows.unit} {self._places[n]} of {earlier.unit} {self._places[same]}" for n, same in pairs[:3]
            )
            self._left_out.append(f"{rows.name}: {len(pairs)} {what} are left out: {named}{_more(pairs)}")

    def _save(self, directory: Path, kept: NDArray[np.int64], evaluation: int) -> IndexInfo:
        starts = np.array(self._starts, np.uint64)[kept]
        np.save(directory / "starts.npy", starts)
        np.save(directory / "hashes.npy", np.frombuffer(self._hashes, np.uint64)[kept])
        np.save(directory / "most_tokens.npy", np.array(self._most_tokens, np.uint32)[kept])
        with (directory / "rows.jsonl").open("rb") as rows:
            found = hashlib.file_digest(rows, "sha256")
        found.update(starts.tobytes())
        return IndexInfo(len(kept), evaluation, found.hexdigest(), tuple(self._left_out))


def _more(found: Sequence[object]) -> str:
    return f" and {len(found) - 3} more" if len(found) > 3 else ""
