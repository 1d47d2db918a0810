"""The verifiers that ship: text, numbers, choices, lists, mathematics, JSON and patterns; for programs see `code_tests`.

Each takes time linear in the answer's length, or is stopped by the worker's time limit.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import regex

from rl_lightning.environments.verifier import Verifier
from rl_lightning.types import UserError, require

_MOST_CHARACTERS = 1000
"""A longer number, choice or item is none."""

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>\d{1,3}(?:,\d{3})+|\d*)(?:\.(?P<decimals>\d*))?(?:[eE](?P<exponent>[+-]?\d{1,3}))?",
    re.ASCII,
)
_PATTERN_SECONDS = 1.0


@dataclass
class ExactText(Verifier):
    """The same text, after Unicode normalisation (NFKC) and with white space as single spaces."""

    ignore_case: bool = True
    """Whether upper and lower case are the same."""

    ignore_punctuation: bool = False
    """Whether punctuation is left out of the comparison."""

    def __call__(self, expected: str, answer: str) -> float:
        return float(self.normalised(answer) == self.normalised(expected))

    def normalised(self, text: str) -> str:
        """What is compared."""
        text = unicodedata.normalize("NFKC", text)
        if self.ignore_punctuation:
            text = "".join(" " if unicodedata.category(c).startswith("P") else c for c in text)
        return " ".join((text.casefold() if self.ignore_case else text).split())


@dataclass
class Number(Verifier):
    """The same number: 1,234 and 1234.0 and 1.234e3; 3/4 and 0.75. Compared exactly, not as floating-point numbers."""

    tolerance: float = 0.0
    """The largest absolute difference that is right; 0 or more."""

    relative_tolerance: float = 0.0
    """The largest difference as a share of the expected number; 0 or more."""

    units: list[str] = field(default_factory=list)
    """Words or signs that may stand before or after a number and are left out, such as $ or km."""

    def __post_init__(self) -> None:
        for name in ("tolerance", "relative_tolerance"):
            value = getattr(self, name)
            require(f"verifier.{name}", value, math.isfinite(value) and value >= 0, "0 or more")

    def __call__(self, expected: str, answer: str) -> float:
        wanted, given = self.number(expected), self.number(answer)
        if wanted is None:
            raise ValueError(f"the expected answer is not a number: {expected[:60]!r}")
        most = max(Fraction(self.tolerance), Fraction(self.relative_tolerance) * abs(wanted))
        return float(given is not None and abs(given - wanted) <= most)

    def number(self, text: str) -> Fraction | None:
        """The number that the text is; None if it is not one."""
        text = text.strip().replace("\u2212", "-")
        for unit in sorted(self.units, key=len, reverse=True):
            sign = text[:1] if text[:1] in "+-" else ""
            text = sign + text.removeprefix(sign).strip().removeprefix(unit).strip().removesuffix(unit).strip()
        above, slash, below = text.partition("/")
        numerator, denominator = _plain_number(above), _plain_number(below) if slash else Fraction(1)
        return None if numerator is None or not denominator else numerator / denominator


def _plain_number(text: str) -> Fraction | None:
    text = text.strip()
    found = _NUMBER.fullmatch(text) if len(text) <= _MOST_CHARACTERS else None
    if found is None or not (found["whole"] or found["decimals"]):
        return None
    digits = Fraction(f"{found['whole'].replace(',', '') or '0'}.{found['decimals'] or '0'}e{found['exponent'] or '0'}")
    return -digits if found["sign"] == "-" else digits


@dataclass
class Choice(Verifier):
    """The same letter of a multiple choice: B, b, (B), B) or B. count as B."""

    letters: str = "ABCDE"
    """The letters to choose from."""

    def __post_init__(self) -> None:
        require("verifier.letters", self.letters, self.letters.isalpha(), "letters only")

    def __call__(self, expected: str, answer: str) -> float:
        wanted, given = self.letter(expected), self.letter(answer)
        if wanted is None:
            raise ValueError(f"the expected answer is none of {self.letters}: {expected[:60]!r}")
        return float(given == wanted)

    def letter(self, text: str) -> str | None:
        """The letter that the text chooses; None if it is not one."""
        found = re.fullmatch(r"\(?([A-Za-z])\)?[.:]?", text.strip(), re.ASCII)
        letter = found[1].upper() if found else ""
        return letter if letter and letter in self.letters.upper() else None


@dataclass
class Items(Verifier):
    """The same items, each compared as text; brackets around all of them and quotation marks around each are left out."""

    ordered: bool = False
    """Whether their order matters."""

    separator: str = ","
    """What stands between two items."""

    ignore_case: bool = True
    """Whether upper and lower case are the same."""

    def __post_init__(self) -> None:
        require("verifier.separator", self.separator, bool(self.separator), "at least one character")

    def __call__(self, expected: str, answer: str) -> float:
        wanted, given = self.items(expected), self.items(answer)
        return float(wanted == given if self.ordered else Counter(wanted) == Counter(given))

    def items(self, text: str) -> list[str]:
        """The items, normalised."""
        text, plain = text.strip(), ExactText(self.ignore_case)
        if text[:1] + text[-1:] in ("[]", "{}", "()"):
            text = text[1:-1]
        return (
            [plain.normalised(item.strip().strip("\"'")) for item in text.split(self.separator)] if text.strip() else []
        )


@dataclass
class Mathematics(Verifier):
    """The same expression in LaTeX or plain notation, by the package math-verify (the extra [math])."""

    def __post_init__(self) -> None:
        try:
            import math_verify  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError("verifier: Mathematics needs the package math-verify: pip install -e .[math]") from error

    def __call__(self, expected: str, answer: str) -> float:
        from math_verify import parse, verify

        # The worker's own time limit holds; math-verify's would need signals.
        wanted, given = (parse(_in_dollars(text), parsing_timeout=None) for text in (expected, answer))
        if not wanted:
            raise ValueError(f"the expected answer is no expression: {expected[:60]!r}")
        return float(bool(given) and verify(wanted, given, timeout_seconds=None))


def _in_dollars(text: str) -> str:
    return text if "$" in text or "\\(" in text or "\\boxed" in text else f"${text}$"


@dataclass
class JSONValue(Verifier):
    """The same JSON value; objects' keys in any order, 1 and 1.0 the same number, true and 1 different values."""

    schema: dict[str, Any] | None = None
    """A JSON Schema (the extra [json], package jsonschema): then an answer is right that it accepts, whatever the expected one."""

    def __post_init__(self) -> None:
        if self.schema is None:
            return
        try:
            from jsonschema import SchemaError
            from jsonschema.validators import validator_for
        except ModuleNotFoundError as error:
            raise UserError("verifier.schema: needs the package jsonschema: pip install -e .[json]") from error
        try:
            validator_for(self.schema).check_schema(self.schema)
        except SchemaError as error:
            raise UserError(f"verifier.schema: not a JSON Schema ({error.message})") from error

    def __call__(self, expected: str, answer: str) -> float:
        given = json.loads(answer, parse_constant=_refuse_constant)
        if self.schema is not None:
            from jsonschema.validators import validator_for

            return float(validator_for(self.schema)(self.schema).is_valid(given))
        return float(_same(json.loads(expected, parse_constant=_refuse_constant), given))

    def check_expected(self, expected: str) -> None:
        """With a schema, there need not be an expected answer."""
        if self.schema is None or expected:
            super().check_expected(expected)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)


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
        return float(regex.fullmatch(self.pattern or expected, answer.strip(), timeout=_PATTERN_SECONDS) is not None)

    def check_expected(self, expected: str) -> None:
        """An expression as expected answer need not match itself."""
        if self.pattern is not None:
            super().check_expected(expected)
            return
        try:
            regex.compile(expected)
        except regex.error as error:
            raise ValueError(f"{expected[:60]!r} is not a regular expression ({error})") from error
