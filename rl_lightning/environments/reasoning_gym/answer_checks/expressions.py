"""Parse arithmetic expressions that a model wrote, without evaluating them as code.

A small parser of Python's arithmetic notation; an `Algebra` gives expressions their meaning. It takes time linear in the text, its
recursion is bounded by MAX_DEPTH, and anything outside the grammar raises `NotInGrammar`.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

MAX_DEPTH = 30
"""Maximum nesting of parentheses, signs and powers. reasoning-gym's own answers nest at most 4 deep."""

_TOKEN = re.compile(r"\s*(?P<token>\d+\.\d+|\d+|[A-Za-z]+|\*\*|\S)", re.ASCII)

V = TypeVar("V")


class NotInGrammar(Exception):
    """The text is not in the grammar; `reason` says in what way."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Algebra(Protocol[V]):
    """The meaning of the parts of an expression. Every method may raise NotInGrammar."""

    def number(self, text: str) -> V: ...

    def name(self, text: str) -> V: ...

    def call(self, function: str, argument: V) -> V: ...

    def negate(self, value: V) -> V: ...

    def binary(self, operator: str, left: V, right: V) -> V: ...


class _Parser(Generic[V]):
    """Recursive descent parser with Python's precedence: + and -, then * and /, then signs, then ** (right-associative)."""

    def __init__(self, text: str, algebra: Algebra[V]) -> None:
        self.tokens = [match["token"] for match in _TOKEN.finditer(text)]
        self.algebra, self.position, self.depth = algebra, 0, 0

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def whole(self) -> V:
        value = self.sum()
        if self.peek():
            raise NotInGrammar("not_an_expression")
        return value

    def sum(self) -> V:
        value = self.product()
        while self.peek() in ("+", "-"):
            value = self.algebra.binary(self.take(), value, self.product())
        return value

    def product(self) -> V:
        value = self.signed()
        while self.peek() in ("*", "/"):
            value = self.algebra.binary(self.take(), value, self.signed())
        return value

    def signed(self) -> V:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotInGrammar("too_deep")
        if self.peek() in ("+", "-"):
            sign, value = self.take(), self.signed()
            value = self.algebra.negate(value) if sign == "-" else value
        else:
            value = self.power()
        self.depth -= 1
        return value

    def power(self) -> V:
        base = self.atom()
        return self.algebra.binary(self.take(), base, self.signed()) if self.peek() == "**" else base

    def atom(self) -> V:
        token = self.take()
        if token == "(":
            return self.closed(self.sum())
        if token[:1] and token[0] in "0123456789":
            return self.algebra.number(token)
        if token.isascii() and token.isalpha():
            if self.peek() != "(":
                return self.algebra.name(token)
            self.take()
            return self.algebra.call(token, self.closed(self.sum()))
        raise NotInGrammar("not_an_expression")

    def closed(self, value: V) -> V:
        if self.take() != ")":
            raise NotInGrammar("not_an_expression")
        return value


def read_expression(text: str, algebra: Algebra[V]) -> V:
    """Parse an expression, and return its value in an algebra.

    Args:
        text: numbers, names, calls with one argument, + - * / ** and parentheses.
        algebra: gives them their meaning.

    Raises:
        NotInGrammar: the text is anything else.
    """
    return _Parser(text, algebra).whole()


class Arithmetic:
    """Algebra of whole numbers and + - * /, computed exactly; `numbers` collects the numbers in the text, in order."""

    MAX_DIGITS = 9
    """No number of countdown or puzzle24 has more digits."""

    def __init__(self, max_numbers: int) -> None:
        self.numbers: list[int] = []
        self.max_numbers = max_numbers

    def number(self, text: str) -> Fraction:
        if not text.isdigit() or len(text) > self.MAX_DIGITS:
            raise NotInGrammar("not_an_expression")
        self.numbers.append(int(text))
        if len(self.numbers) > self.max_numbers:
            raise NotInGrammar("wrong_numbers")
        return Fraction(int(text))

    def name(self, text: str) -> Fraction:
        raise NotInGrammar("not_an_expression")

    def call(self, function: str, argument: Fraction) -> Fraction:
        raise NotInGrammar("not_an_expression")

    def negate(self, value: Fraction) -> Fraction:
        return -value

    def binary(self, operator: str, left: Fraction, right: Fraction) -> Fraction:
        if operator == "+":
            return left + right
        if operator == "-":
            return left - right
        if operator == "*":
            return left * right
        if operator == "/" and right:
            return left / right
        raise NotInGrammar("not_an_expression" if operator == "**" else "wrong_value")
