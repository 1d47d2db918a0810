"""Checks of answers that are numbers, dates, fractions or rows of numbers.

Upstream reads most of them with `float`, `int` or `Fraction`, which accept nan, inf, underscores and exponents that no memory can
hold, and compares with tolerances that forgive wrong digits.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

_DECIMAL = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_REAL = r"(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(?:e[+-]?\d{1,2})?"
_COMPLEX = re.compile(rf"[+-]?{_REAL}|[+-]?(?:{_REAL})?[ij]|[+-]?{_REAL}[+-](?:{_REAL})?[ij]", re.ASCII)
_LEAST_RELATIVE = Fraction(1, 100)
"""Maximum relative error: 0 is no answer to a probability of 0.0005, although they differ by less than upstream's tolerance."""


_EXACT = Fraction(1, 10**12)
"""Absolute error; binary floating-point numbers are closer than this to the decimals that they represent."""


def read_decimal(text: str) -> Decimal | None:
    """Read a plain decimal number of bounded length; None for nan, inf, underscores, digits of other scripts and other text."""
    return Decimal(text) if _DECIMAL.fullmatch(text) else None


_NUMERIC = re.compile(r"[\d.,_+eE-]*\d[\d.,_+eE-]*")
_SEPARATED = re.compile(r"[+-]?(?:\d+|\d{1,3}(?:,\d{3})+)?(?:\.\d*)?(?:[eE][+-]?\d+)?")


def has_right_digits(given: Decimal, right: Fraction, precision: Fraction = _EXACT) -> bool:
    """Whether `given` is `right`, rounded to the nearest or truncated at the last place that it states.

    Args:
        given: the answer; 2.50 states one place more than 2.5.
        right: the right number.
        precision: how precisely `right` is known.
    """
    unit, excess = _last_place(given), abs(Fraction(given)) - abs(right)
    same_sign = Fraction(given) * right >= 0
    return same_sign and -unit - precision < excess <= unit / 2 + precision


def _last_place(number: Decimal) -> Fraction:
    return Fraction(10) ** int(number.as_tuple().exponent)


def _is_near(given: Fraction, right: Fraction) -> bool:
    return abs(given - right) <= _LEAST_RELATIVE * abs(right)


def advanced_geometry(answer: str, entry: dict[str, Any]) -> str | None:
    """One angle, radius or point with the right digits; upstream reads `4°5` as 45 and the first of several points."""
    numbers = re.fullmatch(r"\(?([^(),°]+),([^(),°]+)\)?|([^(),°]+)°?", answer)
    given = [read_decimal(part.strip()) for part in numbers.groups() if part] if numbers else []
    if not given or None in given:
        return "not_a_number"
    if entry["metadata"]["task_type"] != "angle_measure":
        return None
    right = Decimal(entry["answer"].replace("°", ""))
    right_digits = given[0] is not None and has_right_digits(given[0], Fraction(right), _last_place(right) / 2)
    return None if right_digits else "wrong_numbers"


def coin_flip(answer: str, entry: dict[str, Any]) -> str | None:
    """The exact fraction, or a decimal within 1e-4 and 1%; upstream gives full marks to any prefix of the answer, even `0`."""
    rational = entry["metadata"]["rational"]
    right = Fraction(rational["numerator"], rational["denominator"])
    if quotient := re.fullmatch(r"(\d{1,60})\s*/\s*(\d{1,60})", answer, re.ASCII):
        numerator, denominator = int(quotient[1]), int(quotient[2])
        return None if denominator and Fraction(numerator, denominator) == right else "wrong_numbers"
    given = read_decimal(answer)
    if given is None:
        return "not_a_number"
    near = abs(Fraction(given) - right) <= Fraction(1, 10_000) and _is_near(Fraction(given), right)
    return None if near and has_right_digits(given, right, right / 10**9) else "wrong_numbers"


def complex_arithmetic(answer: str, entry: dict[str, Any]) -> str | None:
    """`a + bi` with plain numbers; upstream gives full marks to `nan`."""
    return None if _COMPLEX.fullmatch(answer.replace(" ", "").lower().strip("()")) else "not_a_number"


def decimal_arithmetic(answer: str, entry: dict[str, Any]) -> str | None:
    """All digits of a result that is exact; of one that was rounded the right digits, as many as are given. Upstream forgives an
    error in the third decimal, even `0` for 0.0004."""
    given, right = read_decimal(answer), Decimal(entry["answer"])
    if given is None:
        return "not_a_number"
    asked = re.search(r"maximum of (\d+) significant digits", entry["question"])
    precision = Fraction(10) ** (right.adjusted() + 1 - int(asked[1])) if asked else _last_place(right)
    if asked and len(right.as_tuple().digits) < int(asked[1]):
        return None if abs(Fraction(given) - Fraction(right)) <= precision else "wrong_numbers"
    right_digits = has_right_digits(given, Fraction(right), precision)
    return None if right_digits and _is_near(Fraction(given), Fraction(right)) else "wrong_numbers"


def separated(answer: str, entry: dict[str, Any]) -> str | None:
    """Commas stand before groups of three digits; upstream takes all of them out, and Python reads underscores: `1,6` was 16."""
    is_number = _NUMERIC.fullmatch(answer) is not None
    return "not_a_number" if is_number and not _SEPARATED.fullmatch(answer) else None


def number_format(answer: str, entry: dict[str, Any]) -> str | None:
    """One of the candidates, digit for digit; upstream accepts a wrong candidate that is within 0.01."""
    given = None if separated(answer, entry) else read_decimal(answer.replace(",", ""))
    if given is None:
        return "not_a_number"
    is_copied = math.isclose(float(given), entry["metadata"]["solution"], rel_tol=1e-14, abs_tol=1e-5)
    return None if is_copied else "wrong_numbers"


def power_function(answer: str, entry: dict[str, Any]) -> str | None:
    """The right digits, as many as are given; upstream compares three."""
    given = read_decimal(answer)
    if given is None:
        return "not_a_number"
    right = Fraction(Decimal(entry["answer"]))
    return None if has_right_digits(given, right, abs(right) / 10**12) else "wrong_numbers"


def calendar_arithmetic(answer: str, entry: dict[str, Any]) -> str | None:
    """A plain whole number if one is asked for; if the right answer is -1, upstream gives full marks to every number."""
    if not re.fullmatch(r"-?\d+", entry["answer"], re.ASCII):
        return None
    if not re.fullmatch(r"[+-]?\d{1,9}", answer, re.ASCII):
        return "not_a_number"
    return "wrong_numbers" if int(entry["answer"]) < 0 and int(answer) != int(entry["answer"]) else None


def gsm_symbolic(answer: str, entry: dict[str, Any]) -> str | None:
    """One number without words; upstream uses the first number of any text, and drops its minus sign."""
    number = re.fullmatch(r"\+?[$€£]?\s?\d{1,18}(?:\.\d{1,18})?\s?%?\.?", answer, re.ASCII)
    return None if number else "not_a_number"


def fraction_simplification(answer: str, entry: dict[str, Any]) -> str | None:
    r"""One fraction, plain or as \frac; upstream uses the first of several."""
    bare = answer.strip("$").strip()
    latex = re.fullmatch(r"\\d?frac\s*{\s*\d{1,40}\s*}\s*{\s*\d{1,40}\s*}", bare, re.ASCII)
    return None if latex or re.fullmatch(r"\d{1,40}\s*/\s*\d{1,40}", bare, re.ASCII) else "not_a_number"


def prime_factorization(answer: str, entry: dict[str, Any]) -> str | None:
    """Whole numbers separated by ×; upstream raises on any other text."""
    factors = answer.split("×")
    return None if all(re.fullmatch(r"\s*\d{1,40}\s*", factor, re.ASCII) for factor in factors) else "not_factors"


_NO_SOLUTION = frozenset(
    {'""', "''", "none", "[]", "no solution", "no solutions", "no real solution", "no real solutions"}
)


def polynomial_equations(answer: str, entry: dict[str, Any]) -> str | None:
    """Numbers separated by commas; upstream ignores all else, so any text is right if there is no real solution."""
    if all(read_decimal(part.strip()) is not None for part in answer.split(",")):
        return None
    no_solution = not entry["answer"] and answer.lower().rstrip(".") in _NO_SOLUTION
    return None if no_solution else "not_a_number"


_CLOCK = r"\d{1,6}:\d{1,2}(?::\d{1,2})?"
_INTERVALS = {
    "date": re.compile(r"-?\d{1,6}(?:\s*days?)?", re.ASCII),
    "time": re.compile(rf"{_CLOCK}(?:\.\d{{3}})?", re.ASCII),
    "datetime": re.compile(rf"-?\d{{1,6}} days?,\s*{_CLOCK}", re.ASCII),
}


def time_intervals(answer: str, entry: dict[str, Any]) -> str | None:
    """The form that was asked for; upstream reads `38 weeks` as 38 days, 5.5 seconds as 5.005, and ignores what follows."""
    kind = entry["metadata"]["task_type"].split("_")[0]
    return None if _INTERVALS[kind].fullmatch(answer) else "not_an_interval"


def number_sorting(answer: str, entry: dict[str, Any]) -> str | None:
    """Exactly the numbers; upstream forgives an error of 1 in each, and accepts a list of "nan" for any list."""
    items = re.fullmatch(r"\[(.*)\]", answer, re.DOTALL)
    given = [read_decimal(item.strip().strip("'\"").strip()) for item in items[1].split(",")] if items else []
    if not given or None in given:
        return "not_a_list_of_numbers"
    return None if given == [Decimal(number) for number in entry["metadata"]["sorted_numbers"]] else "wrong_numbers"


def pool_matrix(answer: str, entry: dict[str, Any]) -> str | None:
    """The right shape, and each number right to two decimals; upstream forgives 1%, and accepts a row for a column."""
    given = [[read_decimal(number) for number in line.split()] for line in answer.splitlines() if line.strip()]
    right = entry["metadata"]["solution"]
    if [len(row) for row in given] != [len(row) for row in right]:
        return "wrong_shape"
    numbers = [number for row in given for number in row]
    if None in numbers:
        return "not_a_number"
    expected = [Fraction(number) for row in right for number in row]
    near = (
        given is not None and has_right_digits(given, right) and abs(Fraction(given) - right) < Fraction(1, 100)
        for given, right in zip(numbers, expected, strict=True)
    )
    return None if all(near) else "wrong_numbers"
