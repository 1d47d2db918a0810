"""Answers that are compared as text."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from rl_lightning.environments.verifier import Verifier, shown

_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
"""Soft hyphen, space of no width, marks of direction, word joiner, byte order mark: nobody sees them. Joiners that change
letters or emoji are not among them."""

_IN_NUMBER = re.compile(r"(?<=\d)[.,:/](?=\d)|(?<!\w)-(?=[\d.])")
"""Punctuation that is part of a number, so that 1.5 is not 1 5, nor -5 the same as 5."""


@dataclass
class ExactText(Verifier):
    """The same text, after Unicode normalisation (NFKC), without invisible characters and with white space as single spaces."""

    ignore_case: bool = True
    """Whether upper and lower case are the same."""

    ignore_punctuation: bool = False
    """Whether punctuation is left out of the comparison, but for that in numbers (-1,234.5)."""

    def __call__(self, expected: str, answer: str) -> float:
        return float(self.normalised(answer) == self.normalised(expected))

    def explain(self, expected: str, answer: str) -> str:
        """What is compared."""
        return f"read as {shown(self.normalised(answer))!r}; expected {shown(self.normalised(expected))!r}"

    def normalised(self, text: str) -> str:
        """What is compared."""
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
        if self.ignore_punctuation:
            kept = {found.start() for found in _IN_NUMBER.finditer(text)}
            text = "".join(
                " " if unicodedata.category(c).startswith("P") and at not in kept else c for at, c in enumerate(text)
            )
        if self.ignore_case:
            text = unicodedata.normalize("NFKC", text.casefold())
        return " ".join(text.split())
