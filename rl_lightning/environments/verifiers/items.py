"""Answers that are a list of items."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rl_lightning.environments.verifier import Verifier, shown
from rl_lightning.environments.verifiers.exact_text import ExactText
from rl_lightning.types import require

_OPENING, _CLOSING = "[{(", "]})"


@dataclass
class Items(Verifier):
    """The same items, each compared as text. Brackets around all of them and quotation marks around each are left out; a separator
    within brackets or quotation marks separates nothing."""

    ordered: bool = False
    """Whether their order matters."""

    separator: str = ","
    """What stands between two items. White space, as often as it likes: a space or a line feed separates without empty items."""

    ignore_case: bool = True
    """Whether upper and lower case are the same."""

    def __post_init__(self) -> None:
        require("verifier.separator", self.separator, bool(self.separator), "at least one character")

    def __call__(self, expected: str, answer: str) -> float:
        wanted, given = self.items(expected), self.items(answer)
        return float(wanted == given if self.ordered else Counter(wanted) == Counter(given))

    def explain(self, expected: str, answer: str) -> str:
        """The items that are missing, and those that are not expected."""
        wanted, given = self.items(expected), self.items(answer)
        missing, extra = Counter(wanted) - Counter(given), Counter(given) - Counter(wanted)
        if missing or extra:
            parts = [f"missing: {_listed(missing)}"] * bool(missing) + [f"not expected: {_listed(extra)}"] * bool(extra)
            return "; ".join(parts)
        if self.ordered and wanted != given:
            return f"the same items in another order: {_listed(given)}; expected {_listed(wanted)}"
        return f"the same items: {_listed(given)}" if given else "no items, as expected"

    def items(self, text: str) -> list[str]:
        """The items, normalised."""
        text, plain = text.strip(), ExactText(self.ignore_case)
        if _is_bracketed(text):
            text = text[1:-1]
        if not text.strip():
            return []
        parts = self._parts(text)
        if not self.separator.strip():
            parts = [part for part in parts if part.strip()]
        return [plain.normalised(_unquoted(part.strip())) for part in parts]

    def _parts(self, text: str) -> list[str]:
        """What stands between the separators that are neither in brackets nor in quotation marks."""
        # An item that begins with a quotation mark is quoted if it also ends with one; an apostrophe in a word is none.
        end = rf"\s*(?=[\]}})]|{re.escape(self.separator)}|\Z)"
        quoted = re.compile(rf"(?:\"[^\"]*\"|'[^']*'){end}")
        parts, start, at, depth, at_start = list[str](), 0, 0, 0, True
        while at < len(text):
            if at_start and text[at] in "\"'" and (quotation := quoted.match(text, at)):
                at, at_start = quotation.end(), False
            elif text.startswith(self.separator, at):
                if depth == 0:
                    parts.append(text[start:at])
                    start = at + len(self.separator)
                at, at_start = at + len(self.separator), True
            else:
                depth += (text[at] in _OPENING) - (text[at] in _CLOSING and depth > 0)
                at_start = text[at] in _OPENING or (at_start and text[at].isspace())
                at += 1
        return [*parts, text[start:]]


def _is_bracketed(text: str) -> bool:
    """Whether one pair of brackets goes around all of the text, which (1, 2), (3, 4) has not."""
    if text[:1] + text[-1:] not in ("[]", "{}", "()"):
        return False
    depth = 0
    for at, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth == 0:
            return at == len(text) - 1
    return False


def _unquoted(item: str) -> str:
    return item[1:-1] if len(item) > 1 and item[0] == item[-1] and item[0] in "\"'" else item


def _listed(items: Iterable[str]) -> str:
    return shown(", ".join(map(repr, items)))
