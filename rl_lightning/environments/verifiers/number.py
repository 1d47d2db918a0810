"""Answers that are one number."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from fractions import Fraction

from rl_lightning.environments.verifier import Verifier, shown
from rl_lightning.types import require

MOST_CHARACTERS = 1000
"""A longer number is none, which bounds the time."""

_SPACES = "[ \u00a0\u2009\u202f]"
"""A space, one that does not break, a thin one, and a thin one that does not break."""

_NUMBER = re.compile(
    rf"(?P<sign>[+-]?)(?P<whole>\d{{1,3}}(?:,\d{{3}})+|\d{{1,3}}(?:(?P<space>{_SPACES})\d{{3}}(?:(?P=space)\d{{3}})*)|\d*)"
    r"(?:\.(?P<decimals>\d*))?(?:[eE](?P<exponent>[+-]?\d{1,3}))?",
    re.ASCII,
)
_DECIMALS_SHOWN = 12


@dataclass
class Number(Verifier):
    """The same number: 1,234 and 1 234 and 1234.0 and 1.234e3; 3/4 and 0.75. Compared exactly, not as floating-point numbers.

    A comma separates thousands and a point decimals, always: 1.234 is a little more than one, and 1.234,5 and 1,5 are no numbers.
    """

    tolerance: float = 0.0
    """The largest absolute difference that is right; 0 or more."""

    relative_tolerance: float = 0.0
    """The largest difference as a share of the expected number; 0 or more."""

    units: list[str] = field(default_factory=list)
    """Words or signs that may stand before or after a number and are left out, such as $ or km/h, as they are written here."""

    def __post_init__(self) -> None:
        for name in ("tolerance", "relative_tolerance"):
            value = getattr(self, name)
            require(f"verifier.{name}", value, math.isfinite(value) and value >= 0, "0 or more")
        require("verifier.units", self.units, all(unit.strip() for unit in self.units), "words or signs, none empty")

    def __call__(self, expected: str, answer: str) -> float:
        wanted, given = self._expected(expected), self.number(answer)
        return float(given is not None and abs(given - wanted) <= self._most(wanted))

    def explain(self, expected: str, answer: str) -> str:
        """Both numbers, and the difference that is allowed."""
        wanted, given = self._expected(expected), self.number(answer)
        if given is None:
            return f"not a number: {shown(answer)!r}; expected {_written(wanted)}"
        most = self._most(wanted)
        allowed = f"; they may differ by {_written(most)}" if most else ""
        return f"read as {_written(given)}; expected {_written(wanted)}{allowed}"

    def number(self, text: str) -> Fraction | None:
        """The number that the text is; None if it is not one."""
        text = text.strip().replace("\u2212", "-").replace(r"\$", "$").replace(r"\%", "%")
        for unit in sorted((unit.strip() for unit in self.units), key=len, reverse=True):
            sign = text[:1] if text[:1] in "+-" else ""
            text = sign + text.removeprefix(sign).strip().removeprefix(unit).strip().removesuffix(unit).strip()
        above, slash, below = text.partition("/")
        if slash and re.search(rf"\d{_SPACES}\d", text):  # 1 234/5 may be meant as one and a fraction
            return None
        numerator, denominator = _plain_number(above), _plain_number(below) if slash else Fraction(1)
        return None if numerator is None or not denominator else numerator / denominator

    def _expected(self, text: str) -> Fraction:
        wanted = self.number(text)
        if wanted is None:
            raise ValueError(f"the expected answer is not a number: {shown(text)!r}; `units` are left out of it")
        return wanted

    def _most(self, wanted: Fraction) -> Fraction:
        """The difference that is allowed; by the tolerance as it is written, since as a float 0.3 is less than three tenths."""
        return max(Fraction(str(self.tolerance)), Fraction(str(self.relative_tolerance)) * abs(wanted))


def _plain_number(text: str) -> Fraction | None:
    text = text.strip()
    found = _NUMBER.fullmatch(text) if len(text) <= MOST_CHARACTERS else None
    if found is None or not (found["whole"] or found["decimals"]):
        return None
    whole = re.sub(r"\D", "", found["whole"]) or "0"
    digits = Fraction(f"{whole}.{found['decimals'] or '0'}e{found['exponent'] or '0'}")
    return -digits if found["sign"] == "-" else digits


def _written(number: Fraction) -> str:
    """The number in decimals where a few are exact, else as a fraction."""
    for decimals in range(_DECIMALS_SHOWN + 1):
        if 10**decimals % number.denominator == 0:
            whole, rest = divmod(abs(number.numerator) * 10**decimals // number.denominator, 10**decimals)
            return shown(f"{'-' if number < 0 else ''}{whole}" + (f".{rest:0{decimals}d}" if decimals else ""))
    return f"{shown(number.numerator)}/{shown(number.denominator)}"
