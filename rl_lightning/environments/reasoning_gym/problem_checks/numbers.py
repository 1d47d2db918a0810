"""Numbers that upstream rounds, truncates or reads in another way than the question."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

from rl_lightning.environments.reasoning_gym.problem_checks.reading import Item, between, differs, exact, groups


def basic_arithmetic(item: Item) -> str | None:
    """Upstream rounds quotients down where they are not whole."""
    return differs(item, exact(item["metadata"]["expression"]))


def decimal_arithmetic(item: Item) -> str | None:
    """Upstream rounds every intermediate result. One unit in the last of the digits that the question asks for is forgiven, as it
    is in answers."""
    digits = int(between(item["question"], "maximum of ", "significant"))
    right, given = exact(item["question"].splitlines()[-1].replace("= ?", "")), Decimal(item["answer"])
    unit = Fraction(10) ** (given.adjusted() + 1 - digits)
    return None if abs(Fraction(given) - right) <= unit else f"it is {float(right)!r}"


def power_function(item: Item) -> str | None:
    """`-3^2` is -9 by the usual precedence, and 9 for upstream."""
    base, power = groups(r"Compute (\S+)\^(-?\d+)\. ", item["question"])
    return "a sign before an even power" if base.startswith("-") and int(power) % 2 == 0 else None


def number_filtering(item: Item) -> str | None:
    """Upstream writes the second of two equal numbers as the first."""
    verb, relation, limit, listed = groups(
        r"(Keep|Remove) all numbers (larger|smaller) than (\S+) in this list: \[(.*)\]", item["question"]
    )
    sign = 1 if relation == "larger" else -1
    kept = [
        text
        for text in listed.replace("'", "").split(", ")
        if (sign * Fraction(text) > sign * Fraction(limit)) == (verb == "Keep")
    ]
    return differs(item, kept)


_NUMBER = r"\$?\d[\d,]*(?:\.\d+)?"
_EQUATION = re.compile(
    rf"(?<![-+*/x%÷] )(?<![\w.,/%$])({_NUMBER}) ?([-+*/x]) ?({_NUMBER}) ?= ?({_NUMBER})(?![\d/%]|[.,]\d)"
)
_ROUNDED = Fraction(1, 10**6)


def gsm_symbolic(item: Item) -> str | None:
    """Upstream rounds what is not whole, such as 23.4 people, and its scorer reads no minus sign."""
    if item["answer"].startswith("-"):
        return "a negative answer, which the scorer does not accept"
    for left, sign, right, result in _EQUATION.findall(item["metadata"]["answer_cot"]):
        a, b, stated = (Fraction(text.replace(",", "").strip("$")) for text in (left, right, result))
        value = {"+": a + b, "-": a - b, "/": a / b if b else stated}.get(sign, a * b)
        if abs(value - stated) > _ROUNDED:
            return f"{left} {sign} {right} is {float(value):g}, not {result}"
    return None
