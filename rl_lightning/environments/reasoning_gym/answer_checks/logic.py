"""Check a conclusion of propositional logic: well-formed, in the question's variables, and more than a copied premise.

Upstream's parser accepts any text as a variable, so `a ∨ b ∨ …` with 40 names makes it try 2**40 assignments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rl_lightning.environments.reasoning_gym.answer_checks.expressions import MAX_DEPTH, NotInGrammar

_TOKEN = re.compile(r"\s*(?P<token>[A-Z]+|\S)")
_LEVELS = ("↔", "→", "∨", "∧")
"""Upstream's operators by precedence, lowest first; all are left-associative."""


class _Formulas:
    """Parser of formulas to truth tables: bit i of a table is the formula's value under the i-th assignment.

    A table is a Python int of 2**n bits for n variables, so formulas are evaluated bitwise and compared exactly.
    """

    def __init__(self, variables: Sequence[str]) -> None:
        self.size = 2 ** len(variables)
        self.true = (1 << self.size) - 1
        self.tables = {name: self._variable(index) for index, name in enumerate(variables)}

    def _variable(self, index: int) -> int:
        """Return a variable's table: 2**index zeros, as many ones, and so on."""
        ones = 1 << index
        pattern, width = ((1 << ones) - 1) << ones, 2 * ones
        while width < self.size:
            pattern, width = pattern | pattern << width, 2 * width
        return pattern

    def read(self, text: str) -> tuple[int, ...]:
        """Parse a formula, and return the tables of its conjuncts; one table if it is not a conjunction.

        Raises:
            NotInGrammar: the text is not a formula in these variables.
        """
        self.tokens = [match["token"] for match in _TOKEN.finditer(text)]
        self.position = self.depth = 0
        tables = self._level(0)
        if self.position < len(self.tokens):
            raise NotInGrammar("not_a_formula")
        return tables

    def _take(self) -> str:
        self.position += 1
        return self.tokens[self.position - 1] if self.position <= len(self.tokens) else ""

    def _level(self, level: int) -> tuple[int, ...]:
        if level == len(_LEVELS):
            return self._unary()
        conjuncts = self._level(level + 1)
        while self.position < len(self.tokens) and self.tokens[self.position] == _LEVELS[level]:
            operator, right = self._take(), self._level(level + 1)
            conjuncts = conjuncts + right if operator == "∧" else (self._join(operator, conjuncts, right),)
        return conjuncts

    def _join(self, operator: str, left: tuple[int, ...], right: tuple[int, ...]) -> int:
        a, b = self.conjunction(left), self.conjunction(right)
        if operator == "∨":
            return a | b
        return (self.true ^ a) | b if operator == "→" else self.true ^ a ^ b

    def conjunction(self, tables: Sequence[int]) -> int:
        table = self.true
        for conjunct in tables:
            table &= conjunct
        return table

    def _unary(self) -> tuple[int, ...]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotInGrammar("too_deep")
        token = self._take()
        if token == "¬":
            tables: tuple[int, ...] = (self.true ^ self.conjunction(self._unary()),)
        elif token == "(":
            tables = self._level(0)
            if self._take() != ")":
                raise NotInGrammar("not_a_formula")
        elif token in self.tables:
            tables = (self.tables[token],)
        else:
            raise NotInGrammar("not_a_formula")
        self.depth -= 1
        return tables


def propositional_logic(answer: str, entry: dict[str, Any]) -> str | None:
    """A conclusion that is not equivalent to one of the premises, nor to parts of several joined by ∧."""
    metadata = entry["metadata"]
    formulas = _Formulas(metadata["variables"])
    try:
        conjuncts = formulas.read(answer)
    except NotInGrammar as error:
        return error.reason
    parts = [formulas.read(premise) for premise in metadata["premises"]]
    premises = {formulas.conjunction(tables) for tables in parts}
    joined = len(conjuncts) > 1 and premises.union(*parts).issuperset(conjuncts)
    return "copied_premise" if joined or formulas.conjunction(conjuncts) in premises else None
