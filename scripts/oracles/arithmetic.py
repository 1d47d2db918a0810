"""Sums, products, divisors and numbers in other forms, computed with exact fractions."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from rl_lightning.environments.reasoning_gym.problem_checks.reading import (
    Item,
    Oracle,
    between,
    differs,
    exact,
    groups,
    whole_numbers,
)


def expression(item: Item) -> str | None:
    """chain_sum and products: the last line of arithmetic in the question."""
    return differs(item, exact(_formula(item["question"])))


def decimal_chain_sum(item: Item) -> str | None:
    right = exact(_formula(item["question"]))
    return None if Fraction(item["answer"]) == right else f"it is {right}"


def bitwise_arithmetic(item: Item) -> str | None:
    return differs(item, hex(exact(item["question"].splitlines()[-1], lambda text: int(text, 16))))


def gcd(item: Item) -> str | None:
    return differs(item, math.gcd(*whole_numbers(between(item["question"], "numbers: "))))


def lcm(item: Item) -> str | None:
    found = whole_numbers(between(item["question"], "numbers: "))
    right = next(n for n in range(max(found), math.prod(found) + 1, max(found)) if not any(n % each for each in found))
    return differs(item, right)


def prime_factorization(item: Item) -> str | None:
    left, factors = whole_numbers(item["question"])[0], []
    for divisor in range(2, left + 1):
        while left % divisor == 0:
            factors.append(divisor)
            left //= divisor
    return differs(item, " × ".join(map(str, factors)))


def fraction_simplification(item: Item) -> str | None:
    given, answered = (Fraction(*whole_numbers(text)[:2]) for text in (item["question"], item["answer"]))
    lowest = whole_numbers(item["answer"])[:2] == [answered.numerator, answered.denominator]
    return None if given == answered and lowest else f"it is {given}"


def base_conversion(item: Item) -> str | None:
    found = re.search(r"base-(\d+) number (\w+) to base-(\d+)", item["question"]) or re.search(
        r"(binary|hexadecimal) number (\w+) to (\w+)", item["question"]
    )
    text = item["question"].split("convert the ")[-1]
    found = re.match(r"(\S+) number (\w+) to (\S+)", text)
    assert found
    source, target = (_base(found[group]) for group in (1, 3))
    return differs(item, _digits(int(found[2], source), target))


def count_bits(item: Item) -> str | None:
    left, bits = whole_numbers(item["question"])[-1], 0
    while left:
        left, bits = left & (left - 1), bits + 1
    return differs(item, bits)


def count_primes(item: Item) -> str | None:
    first, last = whole_numbers(item["question"])[:2]
    return differs(item, sum(n > 1 and all(n % d for d in range(2, math.isqrt(n) + 1)) for n in range(first, last + 1)))


def complex_arithmetic(item: Item) -> str | None:
    question = item["question"].split(": ")[1]
    left, sign, right = re.fullmatch(r"\((.*)\) ([-+×÷]) \((.*)\)", question).groups()  # type: ignore[union-attr]
    a, b, found = (_complex(text) for text in (left, right, item["answer"]))
    expected = {"+": a + b, "-": a - b, "×": a * b, "÷": a / b if b else math.nan}[sign]
    return None if abs(expected - found) < 1e-9 else f"it is {expected}"


def simple_equations(item: Item) -> str | None:
    """A line through two points of left minus right is zero at the root."""
    left, right = item["metadata"]["equation"].split("=")
    name = item["metadata"]["variable"]
    at = [exact(f"({left}) - ({right})".replace(name, f"({x})")) for x in (0, 1)]
    return differs(item, Fraction(at[0], at[0] - at[1]))


def number_format(item: Item) -> str | None:
    """Candidates as the question writes them, with all their digits."""
    kind, listed = groups(r"pick the (largest|smallest) number of .*?: (.*)", item["question"])
    values = [Fraction(text.replace(",", "")) for text in listed.split()]
    right = max(values) if kind == "largest" else min(values)
    return None if abs(Fraction(item["answer"]) - right) < Fraction(1, 10**5) else f"it is {float(right)}"


def number_sorting(item: Item) -> str | None:
    order, listed = groups(r"in (ascending|descending) order: (.*)", item["question"])
    return differs(item, sorted(listed.split(", "), key=Fraction, reverse=order == "descending"))


def _formula(question: str) -> str:
    return re.findall(r"-?\(?-?\d[\d\s.+*/()-]*", question.replace("=", ""))[-1].rstrip(" .")


def _base(name: str) -> int:
    return {"binary": 2, "hexadecimal": 16, "decimal": 10, "octal": 8}.get(name) or int(name.removeprefix("base-"))


def _digits(number: int, base: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, base)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits


def _complex(text: str) -> complex:
    return complex(text.replace(" ", "").replace("i", "j"))


ORACLES: dict[str, Oracle] = {
    "base_conversion": base_conversion,
    "bitwise_arithmetic": bitwise_arithmetic,
    "chain_sum": expression,
    "complex_arithmetic": complex_arithmetic,
    "count_bits": count_bits,
    "count_primes": count_primes,
    "decimal_chain_sum": decimal_chain_sum,
    "fraction_simplification": fraction_simplification,
    "gcd": gcd,
    "lcm": lcm,
    "number_format": number_format,
    "number_sorting": number_sorting,
    "prime_factorization": prime_factorization,
    "products": expression,
    "simple_equations": simple_equations,
}
