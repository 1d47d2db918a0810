"""Read questions: what stands where, numbers, grids and exact values of arithmetic."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

Item = Mapping[str, Any]
"""reasoning-gym's item: question, answer, metadata."""

Oracle = Callable[[Item], str | None]
"""What is wrong with an item's answer; None if it is right, and the only one where the task takes no other."""

Grid = list[list[str]]

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}


def differs(item: Item, right: object) -> str | None:
    """The right answer where the item has another one."""
    return None if str(item["answer"]).strip() == str(right).strip() else f"it is {right}"


def groups(pattern: str, text: str, flags: int = 0) -> tuple[str, ...]:
    """The groups of the pattern's first match.

    Raises:
        ValueError: it does not match, so the task asks in another form.
    """
    if (found := re.search(pattern, text, flags)) is None:
        raise ValueError(f"the question is not understood: no {pattern}")
    return found.groups()


def whole_numbers(text: str) -> list[int]:
    """All whole numbers in the text."""
    return [int(number) for number in re.findall(r"-?\d+", text)]


def between(text: str, start: str, end: str = "") -> str:
    """What stands between the last `start` and the first `end` after it, or the end of the text."""
    rest = text[text.rindex(start) + len(start) :]
    return (rest[: rest.index(end)] if end else rest).strip()


def grid(text: str) -> Grid:
    """Rows of words."""
    return [line.split() for line in text.strip().splitlines()]


def numbers(text: str) -> list[list[int]]:
    """Rows of whole numbers."""
    return [[int(word) for word in row] for row in grid(text)]


def rows(matrix: list[list[Any]]) -> str:
    """The matrix as the tasks write it."""
    return "\n".join(" ".join(map(str, row)) for row in matrix)


def exact(expression: str, number: Callable[[str], Any] = Fraction) -> Any:
    """The value of arithmetic with the usual precedence, each literal read by `number`. Nothing is run as code.

    Raises:
        ZeroDivisionError: a division by zero.
        ValueError: something that is no arithmetic.
    """
    text = expression.strip()

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return _BINARY[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return -value(node.operand) if isinstance(node.op, ast.USub) else value(node.operand)
        if isinstance(node, ast.Constant):
            return number(ast.get_source_segment(text, node) or "")
        raise ValueError(expression)

    return value(ast.parse(text, mode="eval").body)
