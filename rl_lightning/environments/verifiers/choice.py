"""Answers that are one letter of a multiple choice."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rl_lightning.environments.verifier import Verifier, shown
from rl_lightning.environments.verifiers.exact_text import ExactText
from rl_lightning.types import require

_OPTION = re.compile(r"\(?(?P<letter>[^\W\d_])(?:\)?[.:]?|(?:\)[.:]?|[.:])\s*(?P<text>\S.*))", re.DOTALL)
"""A letter, in parentheses or not; or with its option's text after a parenthesis, point or colon."""


@dataclass
class Choice(Verifier):
    """The same letter of a multiple choice: B, b, (B), B) or B. count as B. Where the data has the whole option, such as
    "B) Paris", that and its text alone are right too."""

    letters: str = "ABCDE"
    """The letters to choose from."""

    def __post_init__(self) -> None:
        require("verifier.letters", self.letters, self.letters.isalpha(), "letters only")

    def __call__(self, expected: str, answer: str) -> float:
        wanted, option = self._expected(expected)
        letter, text = self.option(answer)
        if letter is None:
            return float(bool(option) and ExactText()(option, answer))
        return float(letter == wanted and (not text or ExactText()(option, text) == 1))

    def explain(self, expected: str, answer: str) -> str:
        """Both letters."""
        wanted, option = self._expected(expected)
        of_expected = f"{wanted}) {shown(option)}" if option else wanted
        letter, text = self.option(answer)
        if letter is None:
            return f"not one of the letters {self.letters}: {shown(answer)!r}; expected {of_expected}"
        if text and letter == wanted and not ExactText()(option, text):
            return f"letter {letter}, but with another text: {shown(text)!r}; expected {of_expected}"
        return f"letter {letter}; expected {of_expected}"

    def option(self, text: str) -> tuple[str | None, str]:
        """The letter that the text chooses, None if it is not one, and the option's text after it, which may be empty."""
        found = _OPTION.fullmatch(text.strip())
        letter = found["letter"].upper() if found else ""
        if found is None or letter not in self.letters.upper():
            return None, ""
        return letter, (found["text"] or "").strip()

    def _expected(self, text: str) -> tuple[str, str]:
        letter, option = self.option(text)
        if letter is None:
            raise ValueError(
                f"the expected answer is none of {self.letters}: {shown(text)!r}; ExactText compares the text of options"
            )
        return letter, option
