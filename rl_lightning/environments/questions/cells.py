"""Take question, answer and working out of a row."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import regex

from rl_lightning.environments.questions.rows import BadRow, Row
from rl_lightning.environments.questions.settings import Cell, Questions
from rl_lightning.types import UserError, first_line

_PATTERN_SECONDS = 1.0
_LONGEST_QUESTION = 100_000

Taken = tuple[str, str, str | None]
"""Question, answer and working."""


class Cells:
    """Reads the columns of a row.

    Args:
        questions: which columns and rows count.
        reshape: makes of a row the one that is used.

    Raises:
        UserError: `answer_pattern` cannot be used.
    """

    def __init__(self, questions: Questions, reshape: Callable[[Row], Row]) -> None:
        self._of, self._reshape, self._pattern = questions, reshape, _answer_pattern(questions.answer_pattern)

    def __call__(self, row: Row | BadRow) -> Taken | None:
        """Question, answer and working of a row; None where `where` leaves it out.

        Raises:
            ValueError: the row cannot be used.
        """
        if isinstance(row, BadRow):
            raise ValueError(row.why)
        row, of = self._reshaped(row), self._of
        if any(not _is_one_of(_cell(row, column), allowed) for column, allowed in of.where.items()):
            return None
        question, answer = _question(_cell(row, of.question), of.question), _text(_cell(row, of.answer), of.answer)
        working = _text(_cell(row, of.thinking), of.thinking) if of.thinking else None
        if self._pattern is not None:
            try:
                found = self._pattern.search(answer, timeout=_PATTERN_SECONDS)
            except TimeoutError as error:
                raise ValueError(f"answer_pattern takes longer than {_PATTERN_SECONDS:g} s") from error
            if found is None:
                raise ValueError(f"answer_pattern finds nothing in {answer[-60:]!r}")
            answer = (found["answer"] or "").strip()
        if not answer:
            raise ValueError(f"{of.answer!r} is empty")
        return question, answer, working

    def _reshaped(self, row: Row) -> Row:
        try:
            reshaped = self._reshape(row)
        except Exception as error:  # the user's own code
            raise ValueError(f"reshape raised {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(reshaped, dict):
            raise ValueError(f"reshape returned {_kind(reshaped)}, not a row")
        return reshaped


def _is_one_of(value: object, allowed: Cell | list[Cell]) -> bool:
    """Whether a cell has one of the allowed values; a CSV file has only texts."""
    return any(
        str(value).lower() == str(each).lower()
        if isinstance(value, bool) or isinstance(each, bool)
        else value == each or str(value) == str(each)
        for each in (allowed if isinstance(allowed, list) else [allowed])
    )


def _cell(row: Row, column: str) -> Any:
    """The value of a column, or of a field in it: a.b is the field b of the column a."""
    if column in row:
        return row[column]
    outer, dot, field = column.partition(".")
    if dot and isinstance(row.get(outer), dict):
        return _cell(row[outer], field)
    raise ValueError(f"has no column {column!r}; it has {', '.join(map(str, row)) or 'none'}")


def _question(value: object, column: str) -> str:
    """The text of a question.

    Raises:
        ValueError: it is none, or one that cannot be used.
    """
    if isinstance(value, list) and all(isinstance(each, dict) and "content" in each for each in value):
        if len(value) != 1 or value[0].get("role", "user") != "user":
            raise ValueError(
                f"{column!r} is a chat of {len(value)} messages, not one of the user (data.system_prompt is for all questions)"
            )
        value = value[0]["content"]
    if not isinstance(value, str):
        raise ValueError(f"{column!r} is {_kind(value)}, not a text")
    text = _readable(value, column)
    if not text or len(text) > _LONGEST_QUESTION:
        raise ValueError(
            f"{column!r} " + ("is empty" if not text else f"has more than {_LONGEST_QUESTION:,} characters")
        )
    return text


def _text(value: object, column: str) -> str:
    """The text of an answer; lists and objects as JSON.

    Raises:
        ValueError: it has none.
    """
    if value is None or isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{column!r} is {_kind(value)}")
    if isinstance(value, bool | list | dict):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return _readable(str(value), column)


def _kind(value: object) -> str:
    names = {
        type(None): "missing",
        bool: "true or false",
        int: "a number",
        list: "a list",
        dict: "an object",
        bytes: "bytes",
    }
    return str(value) if isinstance(value, float) else names.get(type(value), type(value).__name__)


def _readable(text: str, column: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{column!r} has half a character (a lone surrogate)") from error
    return text.replace("\r\n", "\n").strip()


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
