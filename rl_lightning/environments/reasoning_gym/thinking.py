"""The working of some tasks' problems in words, for worked examples in prompts: short, and each step right."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reasoning_gym.arithmetic.leg_counting import ANIMALS

_TERM = re.compile(r"([+-])(-?\d+(?:\*-?\d+)*)")
"""A signed term: whole numbers, multiplied."""


def working(task: str, metadata: Mapping[str, Any]) -> str | None:
    """The working of a problem, None where there is none for its task or its form.

    Args:
        task: reasoning-gym's name of the task.
        metadata: that of the item.
    """
    write = _WORKINGS.get(task)
    return None if write is None else write(metadata)


def _expression(metadata: Mapping[str, Any]) -> str | None:
    """`34 * 2 + 12 - 5` becomes "34 * 2 = 68, 68 + 12 = 80, 80 - 5 = 75". None with parentheses or a division, and for products
    after a sum, which reasoning-gym's basic_arithmetic (0.1.25) computes from the left, as if there were parentheses."""
    compact = "+" + metadata["expression"].replace(" ", "")
    terms = _TERM.findall(compact)
    if "".join(sign + term for sign, term in terms) != compact or any("*" in term for _, term in terms[1:]):
        return None
    return _sum([(sign, [int(factor) for factor in term.split("*")]) for sign, term in terms])


def _sum(terms: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Running totals of products with a sign."""
    steps: list[str] = []
    total = 0
    for number, (sign, factors) in enumerate(terms):
        value = factors[0]
        for factor in factors[1:]:
            steps.append(f"{value} * {factor} = {value * factor}")
            value *= factor
        new = total + value if sign == "+" else total - value
        if number > 0:
            steps.append(f"{total} {sign} {value} = {new}")
        total = new
    return ", ".join(steps) or f"It is {total}"


def _legs(metadata: Mapping[str, Any]) -> str:
    return _sum([("+", (count, ANIMALS[animal])) for animal, count in metadata["animals"].items()])


def _backward(metadata: Mapping[str, Any]) -> str:
    word = metadata["word"]
    return f"{'-'.join(word)} backward is {'-'.join(reversed(word))}"


def _letters(metadata: Mapping[str, Any]) -> str:
    letter = metadata["target_letter"]
    counts = [(word, word.lower().count(letter.lower())) for word in metadata["span"]]
    found = ", ".join(f"{word} {count}" for word, count in counts if count)
    return f"Words with {letter}: {found or 'none'}. Together {sum(count for _, count in counts)}"


def _greatest_divisor(metadata: Mapping[str, Any]) -> str | None:
    """Euclid's algorithm for two numbers."""
    if len(metadata["numbers"]) != 2:
        return None
    larger, smaller = sorted(metadata["numbers"], reverse=True)
    steps: list[str] = []
    while smaller:
        steps.append(f"{larger} mod {smaller} = {larger % smaller}")
        larger, smaller = smaller, larger % smaller
    return f"{', '.join(steps)}, so it is {larger}"


def _extreme(metadata: Mapping[str, Any]) -> str:
    numbers = ", ".join(f"{number:g}" if number == int(number) else str(number) for number in metadata["candidates"])
    return f"The numbers are {numbers}. The {metadata['size']} is {metadata['solution']}"


_WORKINGS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "basic_arithmetic": _expression,
    "chain_sum": _expression,
    "gcd": _greatest_divisor,
    "leg_counting": _legs,
    "letter_counting": _letters,
    "number_format": _extreme,
    "products": _expression,
    "spell_backward": _backward,
}
