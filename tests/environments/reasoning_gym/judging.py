"""Whether an answer that was paid in full is right, by other means than the verifier that paid it."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

from oracles import ORACLES

from rl_lightning.types import Problem


def number(text: str) -> Decimal | None:
    try:
        return Decimal(re.sub(r"(?<=\d),(?=\d{3}\b)", "", text))
    except InvalidOperation:
        return None


def _plain(text: str) -> str:
    """In ordinary letters and digits."""
    return "".join(str(unicodedata.digit(character, character)) for character in unicodedata.normalize("NFKC", text))


def is_right(name: str, problem: Problem, answer: str, right: str) -> bool:
    """The same but for case, spaces, quotes and brackets, or the same number, or right by an independent solver."""
    bare = [re.sub(r"[\s'\"\[\](){},|→]+", "", _plain(text)).casefold() for text in (answer, right)]
    if bare[0].rstrip(".").lstrip("+") == bare[1].rstrip(".").lstrip("+"):
        return True
    expected, given = number(right), number(answer)
    if expected is not None and given is not None:
        tolerance = {
            "coin_flip": 1e-4,
            "decimal_arithmetic": 1e-4,
            "power_function": 1e-2,
            "advanced_geometry": 1e-3,
            "number_format": 1e-13,
        }
        return abs(given - expected) <= abs(expected) * Decimal(tolerance.get(name, 0))
    try:
        return name in ORACLES and ORACLES[name]({**problem.payload, "answer": answer}) is None
    except (ArithmeticError, LookupError, ValueError, AssertionError):
        return False


OTHERS = {
    "boxnet": r"gent\[",  # the agent's name is read by its square
    "knights_knaves": r"is \w+ an? \w+",  # words in another order, each name still before its role
    "polynomial_equations": r"[-\d., ]+$",  # in any order
    "prime_factorization": r"[\d ×]+$",
    "rush_hour": r"(?:[A-Z][+-]\d[ ,]*)+$",  # legal moves
    "time_intervals": r"[\d:]+$|\d+ days?",
    "advanced_geometry": r"",
    "cryptarithm": r"",
    "sokoban": r"[LRUD\s,]+$",
    "number_sorting": r"",
    "complex_arithmetic": r"",
}
"""What may be right in another form, where no independent solver reads it."""


def may_be_right(name: str, answer: str) -> bool:
    """Whether an answer that was paid in full has a form of OTHERS."""
    return name in OTHERS and re.search(OTHERS[name], answer) is not None
