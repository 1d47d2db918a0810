"""The rules that the checks are made of: arithmetic, logic, calculus, digits."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lightning.environments.reasoning_gym.answer_checks.checks import refuse_answer
from rl_lightning.environments.reasoning_gym.answer_checks.expressions import Arithmetic, NotInGrammar, read_expression
from rl_lightning.environments.reasoning_gym.answer_checks.logic import _Formulas
from rl_lightning.environments.reasoning_gym.answer_checks.numbers import has_right_digits
from tests.environments.reasoning_gym.right_answers import made, problems, task

numbers = st.integers(0, 99).map(str)
sums = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join),
        inner.map("({})".format),
        inner.map("-{}".format),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(sums)
def test_arithmetic_is_pythons(text):
    try:
        expected = eval(re.sub(r"\d+", r"Fraction(\g<0>)", text), {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(NotInGrammar):
            read_expression(text, Arithmetic(99))
    else:
        assert read_expression(text, Arithmetic(99)) == expected


def test_truth_tables_agree_with_upstream_on_what_follows():
    chosen = task("propositional_logic")
    for problem in problems("propositional_logic"):
        metadata = problem.payload["metadata"]
        formulas = _Formulas(metadata["variables"])
        premises = formulas.conjunction([table for premise in metadata["premises"] for table in formulas.read(premise)])
        for other in problems("propositional_logic")[:10]:
            for text in other.payload["metadata"]["premises"]:
                if set(re.findall("[A-Z]", text)) <= set(metadata["variables"]) and len(text) > 1:
                    table = formulas.conjunction(formulas.read(text))
                    follows = premises & ~table == 0 and table != formulas.true
                    assert (chosen.verify(problem, text) == 1.0) == follows


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        ("x**2/2 + C", None),
        ("x*x*0.5", None),
        ("(x**2 + 7)/2 + log(3)", None),
        ("x**2", "wrong_value"),
        ("x**2/2 + C*x", "wrong_value"),
        ("x**2/2 + exp(exp(exp(9)))", "too_large"),
        ("x**2/2 + 0*9**9**9", "too_large"),
        ("x**2/2 + 0*x**101", "too_large"),
        ("x**2/2 + t", "unknown_name"),
        ("x**2/2 + y(1)", "unknown_name"),
        ("x**2/2 + C;", "not_an_expression"),
        ("x**2/2 + 1/0", "division_by_zero"),
        ("(" * 40 + "x" + ")" * 40, "too_deep"),
    ],
)
def test_antiderivatives(answer, refusal):
    assert refuse_answer("simple_integration", answer, made("x**2/2 + C", integrand="x", variable="x")) == refusal


@pytest.mark.parametrize(
    ("answer", "right", "has"),
    [
        *(("2.345", "2.345", True), ("2.35", "2.345", True), ("2.34", "2.345", True), ("2", "2.345", True)),
        *(("2.349", "2.345", False), ("2.346", "2.345", False), ("2.33", "2.345", False), ("3", "2.345", False)),
        *(("-2.34", "-2.345", True), ("2.34", "-2.345", False), ("0", "2.345", False), ("2.3450", "2.345", True)),
        *(("2.3e2", "234.5", True), ("2.4e2", "234.5", False), ("1e-3", "0.001", True), ("0.00", "0.001", True)),
    ],
)
def test_right_digits_are_rounded_or_cut_off(answer, right, has):
    assert has_right_digits(Decimal(answer), Fraction(right)) is has
