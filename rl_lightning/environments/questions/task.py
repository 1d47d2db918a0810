"""Questions and answers of one's own as a task: from a file (JSONL, CSV, Parquet), or from a data set of the hub."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rl_lightning.environments.question_hash import QuestionTable
from rl_lightning.environments.questions.identity import settings_of, source_of
from rl_lightning.environments.questions.index import open_index
from rl_lightning.environments.questions.rows import FileRows, HubRows, Rows
from rl_lightning.environments.questions.settings import Questions
from rl_lightning.environments.questions.writer import QuestionWriter
from rl_lightning.environments.verified import VerifiedTask
from rl_lightning.types import Problem, UserError, require

log = logging.getLogger(__name__)


class QuestionFile(VerifiedTask):
    """The questions of a file or data set, each row with a question and its answer. Each is trained on once in an epoch.

    Of rows whose questions differ only in white space, case or punctuation after a word, the first counts, and none that the
    evaluation's own split has; the others are named. A subclass can make question and answer out of other columns: see `reshape`.

    Args:
        questions: where the rows are, which columns count, and the verifier.

    Raises:
        UserError: the file cannot be read, has no row that can be used, or has some that cannot.
    """

    def __init__(self, questions: Questions) -> None:
        if not questions.path:
            raise UserError("path: names no file and no data set")
        require("rows", questions.rows, questions.rows >= 0, "0 or more")
        self.questions, self.verifier = questions, questions.verifier
        training, evaluation = _sources(questions)
        key, writer = self._key(training, evaluation), QuestionWriter(questions, self.reshape)
        self._index = open_index(key, lambda directory: writer.write(directory, training, evaluation))
        if key != self._key(training, evaluation):
            raise UserError(f"{questions.path}: changed while it was read; start again")
        info = self._index.info
        for line in info.left_out:
            log.warning(line)
        self.size = info.size
        if info.evaluation:
            self.eval_items = range(info.size - info.evaluation, info.size)
        own = {
            k: v for k, v in vars(self).items() if k not in ("questions", "verifier", "_index", "size", "eval_items")
        }
        self.config = {"sha256": info.sha256, "questions": info.size, "verifier": settings_of(self.verifier)}
        self.config |= {"reshape": settings_of(own)} if own else {}

    def _key(self, training: Rows, evaluation: Rows | None) -> str | None:
        """What the index is found by: it changes with the file's content, the settings, and the code that reads or verifies. None
        where no part of it may stay the same: the hub's newest rows, or a class without a file."""
        digests = [rows.digest() for rows in (training, evaluation) if rows is not None]
        code = [source_of(type(self)), source_of(type(self.verifier))]
        if None in digests or None in code:
            return None
        settings = {
            each.name: getattr(self.questions, each.name) for each in fields(Questions) if each.name != "verifier"
        }
        own = {k: v for k, v in vars(self).items() if k not in ("questions", "verifier", "_index")}
        parts = digests, code, settings, settings_of(self.verifier), settings_of(own)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def reshape(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row as it is used; override it to make the question out of several columns, for example of a text and its choices.

        Args:
            row: column to value, as read.
        """
        return row

    def problem(self, seed: int) -> Problem:
        """The question with that number."""
        question, expected, working = self._index[seed]
        return Problem(question, expected, payload=working)

    def table(self) -> QuestionTable:
        """Read from the index."""
        return self._index.table()

    def thinking(self, problem: Problem) -> str | None:
        """The row's working."""
        return None if problem.payload is None else str(problem.payload)

    def check_settings(self, settings: Mapping[str, Any], where: str) -> None:
        """A file has no levels."""
        raise UserError(f"{where}: a file has no levels; make one task of each difficulty, chosen by `where`")

    def describe(self) -> str:
        """The file, and how many questions it has."""
        own = f", of them {len(self.eval_items)} for the evaluation" if self.eval_items is not None else ""
        return f"{self.questions.path}: {self.size} questions{own}, verified by {type(self.verifier).__name__}"


def _sources(questions: Questions) -> tuple[Rows, Rows | None]:
    """Where the rows of training are read, and those of the evaluation's own split."""
    hub_only = {name: getattr(questions, name) for name in ("subset", "revision", "eval_split")}
    hub_only["split"] = questions.split != "train"
    if questions.is_file:
        if given := next((name for name, value in hub_only.items() if value), None):
            raise UserError(f"{given}: is for data sets of the hub; {questions.path} is a file")
        return FileRows(questions.path), FileRows(questions.eval_path) if questions.eval_path else None
    if questions.eval_path:
        raise UserError(f"eval_path: is for files; of the data set {questions.path} name an eval_split")
    if not questions.split:
        raise UserError(f"split: empty; name the split of {questions.path} to train on")
    if questions.eval_split == questions.split:
        raise UserError(
            f"eval_split: is the split that is trained on ({questions.split}); leave it empty to hold rows out of it"
        )
    of, streamed = (questions.path, questions.subset), questions.rows > 0
    training, evaluation = (
        HubRows(*of, split, questions.revision, streamed) if split else None
        for split in (questions.split, questions.eval_split)
    )
    assert training is not None  # its split has a name
    return training, evaluation
