"""Checks of answers that are formulas: arithmetic, antiderivatives and polynomials.

Upstream passes all three to Python's `eval` through sympy, so nothing may pass that is not clearly a formula.
"""

from __future__ import annotations

import re
from typing import Any

from rl_lightning.environments.reasoning_gym.answer_checks.calculus import refuse_antiderivative
from rl_lightning.environments.reasoning_gym.answer_checks.expressions import Arithmetic, NotInGrammar, read_expression

_MAX_FORMULA = 600
"""Maximum length of an antiderivative in characters (or 4 times the right answer's, if that is more); sympy's time grows fast with
the length."""


def countdown(answer: str, entry: dict[str, Any]) -> str | None:
    """Each number once, and exactly the target; upstream accepts values within 1e-5 of it, and reads 2.5 as 2 and 5."""
    return _arithmetic(answer, entry["metadata"]["numbers"], entry["metadata"]["target"])


def puzzle24(answer: str, entry: dict[str, Any]) -> str | None:
    """Each number once, and exactly 24; upstream accepts any four numbers, and rounds 24.9 down."""
    return _arithmetic(answer, entry["metadata"]["numbers"], 24)


def _arithmetic(answer: str, numbers: list[int], target: int) -> str | None:
    arithmetic = Arithmetic(max_numbers=len(numbers))
    try:
        value = read_expression(answer, arithmetic)
    except NotInGrammar as error:
        return error.reason
    if sorted(arithmetic.numbers) != sorted(numbers):
        return "wrong_numbers"
    return None if value == target else "wrong_value"


def integration(answer: str, entry: dict[str, Any]) -> str | None:
    """An elementary function with the right slope; upstream runs anything, and accepts `Integral(f, x)`."""
    if len(answer) > max(_MAX_FORMULA, 4 * len(entry["answer"])):
        return "too_long"
    return refuse_antiderivative(answer, entry["metadata"]["integrand"], entry["metadata"]["variable"])


_SIGNED_TERM = re.compile(r"[+-]{0,2}[^+-]+")
_POWER = re.compile(r"(?P<name>[A-Za-z]+)(?:\^(?P<exponent>[1-9]\d{0,2}|0))?")
_WHOLE = re.compile(r"\d{1,60}")

Polynomial = dict[frozenset[tuple[str, int]], int]
"""Monomial to its coefficient; a monomial is a set of variables with their exponents."""


def polynomial_multiplication(answer: str, entry: dict[str, Any]) -> str | None:
    """A sum of monomials in simplest form, equal to the right one; upstream accepts `expand(question)`."""
    variables = frozenset(entry["metadata"]["variables"])
    try:
        given = _read_polynomial(answer, variables)
        return None if given == _read_polynomial(entry["answer"], variables) else "wrong_value"
    except NotInGrammar as error:
        return error.reason


def _read_polynomial(text: str, variables: frozenset[str]) -> Polynomial:
    """Read a polynomial such as `-3*x**2*y + x - 7`, without expanding products or adding up like terms.

    Raises:
        NotInGrammar: "not_a_polynomial" or "unevaluated".
    """
    if re.search(r"\w\s+\w", text):  # "1 2" must not become 12
        raise NotInGrammar("not_a_polynomial")
    compact = "".join(text.split()).replace("**", "^")
    terms = _SIGNED_TERM.findall(compact)
    if "".join(terms) != compact or not terms:
        raise NotInGrammar("not_a_polynomial")
    polynomial: Polynomial = {}
    for term in terms:
        monomial, coefficient = _read_monomial(term.lstrip("+-"), variables)
        if monomial in polynomial:
            raise NotInGrammar("unevaluated")
        polynomial[monomial] = -coefficient if term.count("-") == 1 else coefficient
    return {monomial: coefficient for monomial, coefficient in polynomial.items() if coefficient}


def _read_monomial(term: str, variables: frozenset[str]) -> tuple[frozenset[tuple[str, int]], int]:
    exponents: dict[str, int] = {}
    coefficient: int | None = None
    for factor in term.split("*"):
        power = _POWER.fullmatch(factor)
        if power is not None and power["name"] in variables:
            if power["name"] in exponents:
                raise NotInGrammar("unevaluated")
            exponents[power["name"]] = int(power["exponent"] or 1)
        elif not (_WHOLE.fullmatch(factor) and factor.isascii()):
            raise NotInGrammar("not_a_polynomial")
        elif coefficient is not None:
            raise NotInGrammar("unevaluated")
        else:
            coefficient = int(factor)
    present = frozenset((name, exponent) for name, exponent in exponents.items() if exponent)
    return present, 1 if coefficient is None else coefficient
