"""Answers that are mathematics, compared by the package math-verify."""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from rl_lightning.environments.plain_answers import bare
from rl_lightning.environments.verifier import Verifier, shown
from rl_lightning.types import UserError

_MOST_CHARACTERS = 1000
_MOST_TIMES = 20
"""An answer has at most so many characters, or so many times those of the expected one, which bounds the time to read it."""

_MOST_NESTED = 12
"""Brackets in each other; the parser takes a second for 15, and minutes for a few dozen."""

_FORMULAS = re.compile(r"\$[^$]+\$(?:\s*(?:,?and|,?or|,)\s*\$[^$]+\$){0,5}")
"""Formulas that math-verify reads as the set of them. It would look for the last formula among any other text."""

_SIGNS = frozenset("−×⋅÷±≤≥≠∪∩∅∈∞√°")
"""Signs beyond ASCII that its parser knows; it drops others, as in 6≈5."""

_SPACE = r"(?:\s|~|\\[ ,;:!]|\\q?quad)+"
_THOUSANDS = re.compile(r"(?<![\w.,])\d{1,3}(?:(?:[ \u00a0\u2009\u202f]|\\,)\d{3})+(?![\d,])", re.ASCII)
_MIXED = re.compile(r"(?<![\d.,_^])(\d+) +(\d+) ?/ ?(\d+)(?![\d.,])", re.ASCII)
_BESIDE = re.compile(rf"(?<![\d_^])\d+{_SPACE}\d|\d\s*\}}?_", re.ASCII)
"""A number beside another one, which the parser would add; a number with an index, which it would drop."""

_OTHER_RELATION = re.compile(
    r"\\(?:approx(?:eq)?|sim(?:eq)?|cong|equiv|asymp|doteq|propto|triangleq|neq?|not|[bp]?mod)(?![A-Za-z])|≠"
)
"""Relations other than equality and order: of 5 \\approx 6 the parser would take the 5."""

_PRIME = re.compile(r"[\d)}\]]\s*(?:'|\^\s*\{?\s*\\prime)|'(?!\s*[(='])")
"""A prime that is no derivative's, as in 5' or x', which the parser would drop."""

_EXPONENT = re.compile(r"(?<![\w.])(\d+(?:\.\d*)?|\.\d+)[eE]([+-]?\d{1,3})(?![\w.])", re.ASCII)


@dataclass
class Mathematics(Verifier):
    """The same expression in LaTeX or plain notation, by the package math-verify (the extra [math]).

    The whole answer must be mathematics: math-verify alone takes the last formula of any text. docs/own_tasks.md says what it takes
    for equal.
    """

    def __post_init__(self) -> None:
        try:
            import math_verify  # noqa: F401
        except ModuleNotFoundError as error:
            raise UserError("verifier: Mathematics needs the package math-verify: pip install -e .[math]") from error

    def __call__(self, expected: str, answer: str) -> float:
        wanted, given = self._expected(expected), self._given(expected, answer)
        return float(bool(given) and _verify(wanted, given) and not _contradicts_itself(given[0], wanted[0]))

    def explain(self, expected: str, answer: str) -> str:
        """Both expressions, as math-verify reads them."""
        wanted, given = self._expected(expected), self._given(expected, answer)
        if not given:
            return f"not mathematics as a whole: {shown(answer)!r}; expected {_written(wanted)}"
        against = "; its sides differ" if _contradicts_itself(given[0], wanted[0]) else ""
        return f"read as {_written(given)}{against}; expected {_written(wanted)}"

    def _expected(self, text: str) -> list[Any]:
        wanted = parsed(text)
        if not wanted:
            raise ValueError(f"the expected answer is no expression: {shown(text)!r}")
        return wanted

    def _given(self, expected: str, answer: str) -> list[Any]:
        if any(sign.search(answer) and not sign.search(expected) for sign in (_OTHER_RELATION, _PRIME)):
            return []
        return parsed(answer) if len(answer) <= max(_MOST_CHARACTERS, _MOST_TIMES * len(expected)) else []


def parsed(text: str) -> list[Any]:
    """The expression that a text is, followed by its text, or the text alone where math-verify cannot read it; empty where it is
    not one formula as a whole."""
    from math_verify import LatexExtractionConfig, parse

    formula = _formula(bare(text.strip()))
    # The worker's own time limit holds; math-verify's would need signals.
    return list(parse(formula, [LatexExtractionConfig()], parsing_timeout=None)) if formula else []


def _formula(text: str) -> str:
    """The text as math-verify finds a formula: between dollars; empty if it is something else."""
    if not all(
        c in "\n\r\t" or c in _SIGNS or unicodedata.category(c)[0] in "LN" or " " <= c <= "~" for c in _joined(text)
    ):
        return ""
    text = " ".join(_joined(text).split())
    text = text[:-1] if text.endswith(".") and not text.endswith("..") else text
    dollars = len(re.findall(r"(?<!\\)\$", text))
    if dollars == 1 and text.startswith("$"):  # of money
        text, dollars = text[1:], 0
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    if (
        _depth(text) > _MOST_NESTED
        or _BESIDE.search(text)
        or "\\boxed" in text
        or (dollars and not _FORMULAS.fullmatch(text))
    ):
        return ""
    text = _EXPONENT.sub(r"(\1 \\cdot 10^{\2})", text.replace("**", "^"))
    return text if dollars else f"${text}$"


def _depth(text: str) -> int:
    """How many brackets are open at most at once."""
    steps = (1 if bracket in "([{" else -1 for bracket in re.findall(r"[()\[\]{}]", text))
    return max(itertools.accumulate(steps), default=0)


def _joined(text: str) -> str:
    """The text without separators of thousands that are spaces."""
    return _THOUSANDS.sub(lambda found: re.sub(r"[^\d]", "", found.group()), text)


def _verify(wanted: Any, given: Any) -> bool:
    from math_verify import verify

    return bool(verify(wanted, given, timeout_seconds=None))


def _contradicts_itself(given: Any, wanted: Any) -> bool:
    """Whether an answer is a chain of equations whose sides differ, such as 6 = 5 or x = 6 = 5: math-verify takes its last side.

    The first side may also be a name for the rest: a variable, a function, or an expression of variables that the expected answer
    does not have.
    """
    from math_verify.grader import is_equation
    from sympy import Derivative, Eq, Symbol, simplify
    from sympy.core.function import AppliedUndef

    if not is_equation(given):
        return False
    links = [given] if isinstance(given, Eq) else given._unsorted_args
    if isinstance(links[0].lhs, (Symbol, AppliedUndef, Derivative)) or is_equation(wanted):
        claims = []
    else:
        first = simplify(links[0].lhs)
        claims = [] if first.free_symbols - getattr(wanted, "free_symbols", set()) else [first]
    claims += [link.rhs for link in links[:-1]]
    return not all(_verify(links[-1].rhs, claim) for claim in claims)


def _written(expressions: list[Any]) -> str:
    first = expressions[0]
    return f"the text {shown(first)!r}" if isinstance(first, str) else shown(first)
