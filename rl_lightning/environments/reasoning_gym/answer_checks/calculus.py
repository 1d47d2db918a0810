"""Decide whether a formula may be an antiderivative: bound its size, then compare its slope with the integrand at a few points.

Upstream differentiates the answer with sympy and simplifies the difference to the integrand, which can take minutes for a short
wrong answer. So an answer with a clearly different slope is refused here, and sympy sees only those that look right.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from rl_lightning.environments.reasoning_gym.answer_checks.expressions import NotInGrammar, read_expression

_CONSTANTS: dict[str, complex] = {"pi": math.pi, "E": math.e, "C": 0.7, "c": 0.7, "K": 0.7, "k": 0.7}
"""Names of constants; a constant of integration may have any value."""

_FUNCTIONS: dict[str, tuple[Callable[[complex], complex], Callable[[complex], complex]]] = {
    "sin": (cmath.sin, cmath.cos),
    "cos": (cmath.cos, lambda u: -cmath.sin(u)),
    "tan": (cmath.tan, lambda u: 1 / cmath.cos(u) ** 2),
    "sec": (lambda u: 1 / cmath.cos(u), lambda u: cmath.sin(u) / cmath.cos(u) ** 2),
    "csc": (lambda u: 1 / cmath.sin(u), lambda u: -cmath.cos(u) / cmath.sin(u) ** 2),
    "cot": (lambda u: 1 / cmath.tan(u), lambda u: -1 / cmath.sin(u) ** 2),
    "asin": (cmath.asin, lambda u: 1 / cmath.sqrt(1 - u * u)),
    "acos": (cmath.acos, lambda u: -1 / cmath.sqrt(1 - u * u)),
    "atan": (cmath.atan, lambda u: 1 / (1 + u * u)),
    "sinh": (cmath.sinh, cmath.cosh),
    "cosh": (cmath.cosh, cmath.sinh),
    "tanh": (cmath.tanh, lambda u: 1 / cmath.cosh(u) ** 2),
    "asinh": (cmath.asinh, lambda u: 1 / cmath.sqrt(1 + u * u)),
    "acosh": (cmath.acosh, lambda u: 1 / (cmath.sqrt(u - 1) * cmath.sqrt(u + 1))),
    "atanh": (cmath.atanh, lambda u: 1 / (1 - u * u)),
    "exp": (cmath.exp, cmath.exp),
    "log": (cmath.log, lambda u: 1 / u),
    "ln": (cmath.log, lambda u: 1 / u),
    "sqrt": (cmath.sqrt, lambda u: 1 / (2 * cmath.sqrt(u))),
}
"""Each function with its derivative."""

_POINTS = (0.2311, 0.1432, 0.0719)
"""Points at which slopes are compared, inside the domain of asin(3*x). A right answer agrees at one of them at least."""

_TOLERANCE = 1e-6
"""Relative to 1 + |slope|; right answers agree to 1e-10."""


@dataclass(frozen=True)
class _Term:
    """Properties of a part of an antiderivative that tell whether sympy can handle it.

    Attributes:
        varies: whether the variable occurs in it.
        literal: its value if it is a plain number, a quotient of two, or the negative of one.
        degree: an upper bound of the product of its nested powers.
        calls: nesting depth of functions and variable exponents.
    """

    varies: bool
    literal: Fraction | None = None
    degree: int = 1
    calls: int = 0


class _Bounds:
    """Algebra of these properties; it accepts the variable, constants, elementary functions, and bounded numbers and powers."""

    MAX_DIGITS, MAX_DECIMALS = 15, 6
    MAX_EXPONENT, MAX_DEGREE, MAX_CALLS = 100, 200, 3

    def __init__(self, variable: str) -> None:
        self.variable = variable

    def number(self, text: str) -> _Term:
        whole, _, decimals = text.partition(".")
        if not (whole + decimals).isdigit() or len(whole) > self.MAX_DIGITS or len(decimals) > self.MAX_DECIMALS:
            raise NotInGrammar("too_large")
        return _Term(varies=False, literal=Fraction(text))

    def name(self, text: str) -> _Term:
        if text != self.variable and text not in _CONSTANTS:
            raise NotInGrammar("unknown_name")
        return _Term(varies=text == self.variable)

    def call(self, function: str, argument: _Term) -> _Term:
        if function not in _FUNCTIONS:
            raise NotInGrammar("unknown_name")
        if not argument.varies and (argument.calls or argument.degree > 1):
            raise NotInGrammar("too_large")  # exp(exp(exp(9))) is too large for any memory
        return self._bounded(_Term(argument.varies, degree=argument.degree, calls=argument.calls + 1))

    def negate(self, value: _Term) -> _Term:
        literal = None if value.literal is None else -value.literal
        return _Term(value.varies, literal, value.degree, value.calls)

    def binary(self, operator: str, left: _Term, right: _Term) -> _Term:
        if operator == "**":
            return self._power(left, right)
        if operator == "/" and right.literal == 0:
            raise NotInGrammar("division_by_zero")
        varies, calls = left.varies or right.varies, max(left.calls, right.calls)
        literal = left.literal / right.literal if operator == "/" and left.literal and right.literal else None
        degree = max(left.degree, right.degree) if operator in "+-" else left.degree + right.degree
        return self._bounded(_Term(varies, literal, degree if varies else max(left.degree, right.degree), calls))

    def _power(self, base: _Term, exponent: _Term) -> _Term:
        if exponent.literal is not None:
            if max(abs(exponent.literal.numerator), exponent.literal.denominator) > self.MAX_EXPONENT:
                raise NotInGrammar("too_large")
            degree = base.degree * max(1, math.ceil(abs(exponent.literal)))
            return self._bounded(_Term(base.varies, None, degree, base.calls))
        if base.varies or not exponent.varies or base.degree > 1:
            raise NotInGrammar("too_large")  # only forms like E**(a*x + b)
        return self._bounded(_Term(True, None, exponent.degree, max(base.calls, exponent.calls) + 1))

    def _bounded(self, term: _Term) -> _Term:
        if term.degree > self.MAX_DEGREE or term.calls > self.MAX_CALLS:
            raise NotInGrammar("too_large")
        return term


@dataclass(frozen=True)
class _Slope:
    """A value and its derivative with respect to the variable."""

    value: complex
    slope: complex = 0


class _Derivative:
    """Algebra of values and slopes at one point (forward-mode differentiation)."""

    def __init__(self, variable: str, point: float) -> None:
        self.names = {name: _Slope(value) for name, value in _CONSTANTS.items()} | {variable: _Slope(point, 1)}

    def number(self, text: str) -> _Slope:
        return _Slope(float(text))

    def name(self, text: str) -> _Slope:
        return self.names[text]

    def call(self, function: str, argument: _Slope) -> _Slope:
        compute, derive = _FUNCTIONS[function]
        return _Slope(compute(argument.value), derive(argument.value) * argument.slope)

    def negate(self, value: _Slope) -> _Slope:
        return _Slope(-value.value, -value.slope)

    def binary(self, operator: str, left: _Slope, right: _Slope) -> _Slope:
        a, b = left.value, right.value
        if operator == "+":
            return _Slope(a + b, left.slope + right.slope)
        if operator == "-":
            return _Slope(a - b, left.slope - right.slope)
        if operator == "*":
            return _Slope(a * b, left.slope * b + a * right.slope)
        if operator == "/":
            return _Slope(a / b, (left.slope - a / b * right.slope) / b)
        slope = b * a ** (b - 1) * left.slope if left.slope else 0
        return _Slope(a**b, slope + (a**b * cmath.log(a) * right.slope if right.slope else 0))


def refuse_antiderivative(text: str, integrand: str, variable: str) -> str | None:
    """Say why `text` is not an antiderivative of `integrand`; None if it seems to be one.

    Args:
        text: the answer.
        integrand: of the question, in sympy's notation.
        variable: of integration.
    """
    try:
        read_expression(text, _Bounds(variable))
    except NotInGrammar as error:
        return error.reason
    return None if any(_agrees(text, integrand, variable, point) for point in _POINTS) else "wrong_value"


def _agrees(text: str, integrand: str, variable: str, point: float) -> bool:
    algebra = _Derivative(variable, point)
    try:
        slope, right = read_expression(text, algebra).slope, read_expression(integrand, algebra).value
        return abs(slope - right) <= _TOLERANCE * (1 + abs(right))
    except ArithmeticError:  # overflow, or a pole
        return False
    except ValueError:  # cmath raises it at a pole
        return False
