"""Equations, products of polynomials, and antiderivatives: roots and slopes as numbers, with many digits."""

from __future__ import annotations

import re
from fractions import Fraction

import mpmath
import sympy

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, Oracle, exact


def polynomial_equations(item: Item) -> str | None:
    """All real roots, each once, at 60 digits."""
    coefficients = _coefficients(item["metadata"]["polynomial_expr"], item["metadata"]["variable"])
    with mpmath.workdps(60):
        found = mpmath.polyroots(coefficients, maxsteps=500, extraprec=500) if len(coefficients) > 1 else []
        real = sorted(float(root.real) for root in map(mpmath.mpc, found) if abs(root.imag) < 1e-15)
    once = [root for k, root in enumerate(real) if not k or root - real[k - 1] > 1e-9]
    given = [float(text) for text in item["answer"].split(",") if text.strip()]
    right = [round(root, 4) for root in once]
    # Halves of the last digit may be rounded either way.
    if len(given) == len(right) and all(abs(g - r) <= 0.5001e-4 for g, r in zip(given, once, strict=True)):
        return None
    return f"the roots are {right}"


def polynomial_multiplication(item: Item) -> str | None:
    """Two polynomials of small degree with the same values at many points are the same."""
    product = item["metadata"]["polynomial_expr"]
    for point in range(3, 25):
        values = {name: 7919 * point + 104729 * k for k, name in enumerate(item["metadata"]["variables"])}
        given, asked = (_at(text, values) for text in (item["answer"], product))
        if given != asked:
            return f"not the product at {values}"
    return None


def integration(item: Item) -> str | None:
    """The slope of the answer is the integrand at points where both are finite."""
    if "Integral" in item["answer"]:
        return "an integral that upstream did not solve"
    symbol = sympy.Symbol(item["metadata"]["variable"])
    names = {str(symbol): symbol, "C": sympy.Integer(0)}
    antiderivative, integrand = (
        sympy.lambdify(symbol, sympy.sympify(text, locals=names), "mpmath")
        for text in (item["answer"], item["metadata"]["integrand"])
    )
    with mpmath.workdps(40):
        for point in (mpmath.mpc("0.2311", "0.31"), mpmath.mpc("0.0719", "-0.17")):
            slope, right = mpmath.diff(antiderivative, point), integrand(point)
            if abs(slope - right) > 1e-9 * (1 + abs(right)):
                return "its slope is not the integrand"
    return None


def _at(text: str, values: dict[str, int]) -> Fraction:
    return Fraction(exact(re.sub(r"[A-Za-z]+", lambda name: f"({values[name.group()]})", text)))


def _coefficients(polynomial: str, variable: str) -> list[int]:
    """Highest power first."""
    powers: dict[int, int] = {}
    for sign, factor, x, power in re.findall(
        rf"([+-]?)\s*(\d*)\*?({variable}?)(?:\*\*(\d+))?", polynomial.replace(" ", "")
    ):
        if factor or x:
            degree = int(power or 1) if x else 0
            powers[degree] = powers.get(degree, 0) + int(f"{sign}{factor or 1}")
    return [powers.get(degree, 0) for degree in range(max(powers), -1, -1)]


ORACLES: dict[str, Oracle] = {
    "intermediate_integration": integration,
    "polynomial_equations": polynomial_equations,
    "polynomial_multiplication": polynomial_multiplication,
    "simple_integration": integration,
}
