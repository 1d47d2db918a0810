"""Answers that a regular expression describes."""

from __future__ import annotations

from dataclasses import dataclass

import regex

from rl_lightning.environments.verifier import Verifier, shown
from rl_lightning.types import UserError

_PATTERN_SECONDS = 1.0


@dataclass
class Pattern(Verifier):
    """A text that a regular expression matches as a whole."""

    pattern: str | None = None
    """The expression; null: every question's expected answer is one of its own."""

    def __post_init__(self) -> None:
        if self.pattern is not None:
            try:
                regex.compile(self.pattern)
            except regex.error as error:
                raise UserError(f"verifier.pattern: {self.pattern!r} is not a regular expression ({error})") from error

    def __call__(self, expected: str, answer: str) -> float:
        return float(regex.fullmatch(self._of(expected), answer.strip(), timeout=_PATTERN_SECONDS) is not None)

    def check_expected(self, expected: str) -> None:
        """An expression as expected answer need not match itself."""
        if self.pattern is not None:
            super().check_expected(expected)
            return
        try:
            regex.compile(expected)
        except regex.error as error:
            raise ValueError(f"{shown(expected)!r} is not a regular expression ({error})") from error

    def explain(self, expected: str, answer: str) -> str:
        """Whether it matches, and up to where if it does not."""
        pattern, answer = self._of(expected), answer.strip()
        if self(expected, answer):
            return f"{shown(pattern)!r} matches {shown(answer)!r}"
        part = regex.match(pattern, answer, timeout=_PATTERN_SECONDS)
        why = "does not match" if not part or not part.group() else f"matches {shown(part.group())!r} and not all of"
        return f"{shown(pattern)!r} {why} {shown(answer)!r}"

    def _of(self, expected: str) -> str:
        return expected if self.pattern is None else self.pattern
