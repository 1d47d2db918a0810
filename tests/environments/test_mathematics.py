"""The verifier of mathematics: what math-verify says it says too, and what math-verify is too generous with is wrong."""

from __future__ import annotations

import pytest

from rl_lightning.environments.verifiers import Mathematics, Number

math_verify = pytest.importorskip("math_verify", reason="needs the extra [math]")

SAME = [
    ("5", "5"),
    ("-5", "-5"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac12", "1/2"),
    ("0.5", r"\frac{2}{4}"),
    (r"\frac{1}{3}", "0.333333"),
    ("1{,}234", "1,234"),
    ("x^2+2x+1", "(x+1)^2"),
    ("x+y", "y+x"),
    ("2x", r"2 \cdot x"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\pi", r"\pi"),
    (r"2\pi r", r"\pi r \cdot 2"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    ("10^{5}", "100000"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("1,2", r"\{1,2\}"),
    ("(1,2)", "(1,2)"),
    ("[1,2)", "[1,2)"),
    (r"(-\infty,2]", r"(-\infty,2]"),
    ("x=5", "5"),
    ("5", "x=5"),
    ("x=5", "x=5"),
    ("x<2", "2>x"),
    (r"50\%", "0.5"),
    ("120", "5!"),
    (r"\log_2 8", "3"),
    (r"\sin(x)", r"\sin x"),
    (r"1 \pm 2", "-1, 3"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}"),
    ("x^2+y^2=1", "y^2+x^2=1"),
    ("3+4i", "4i+3"),
    (r"\emptyset", r"\emptyset"),
]
DIFFERENT = [
    ("5", "6"),
    ("5", "-5"),
    (r"\frac{1}{3}", "0.33"),
    ("x+1", "x-1"),
    ("x=5", "y=5"),
    ("(1,2)", "[1,2]"),
    (r"\{1,2\}", r"\{1,3\}"),
    ("x<2", "x>2"),
    (r"\pi", "3.14"),
    ("5", r"5 \text{ or } 6"),
    (r"\sqrt{2}", "1.41"),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}2&1\end{pmatrix}"),
]


@pytest.mark.parametrize(("pairs", "score"), [(SAME, 1), (DIFFERENT, 0)])
def test_it_says_what_math_verify_says(pairs, score):
    def by_itself(expected, answer):
        wanted, given = (math_verify.parse(f"${text}$", parsing_timeout=None) for text in (expected, answer))
        return math_verify.verify(wanted, given, timeout_seconds=None)

    assert [(pair, Mathematics()(*pair)) for pair in pairs] == [(pair, score) for pair in pairs]
    assert [(pair, by_itself(*pair)) for pair in pairs] == [(pair, score == 1) for pair in pairs]


@pytest.mark.parametrize("expected", ["7", "-7", "1,234", "0.75", "3/4", "1e3", "1234567", "0.00001"])
def test_it_agrees_with_number_on_plain_numbers(expected):
    answers = ["7", "7.0", "-7", "−7", "1234", "1,234", "1 234", "1.234", "0.750", ".75", "3/4", "6/8", "1e3", "1000"]
    answers += ["1,234,567", "1 234 567", "1e-5", "0.00001", "70", "seven", "7 8"]
    assert [(a, Mathematics()(expected, a)) for a in answers] == [(a, Number()(expected, a)) for a in answers]


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("5", "6 = 5"),
        ("5", "1 = 2 = 5"),
        ("x=5", "x = 6 = 5"),
        ("x+1", "x+2 = x+1"),
        ("5", "$6$, no $5$"),
        ("5", "6 $5$"),
        ("5", r"\boxed{6} \boxed{5}"),
        ("6", "5\n6"),
        ("11", "5 6"),
        ("11", r"5\;6"),
        ("6", "6≈5"),
        ("5", "5\x00"),
        ("5", r"5 \approx 6"),
        ("5", r"x \sim 5"),
        ("5", r"5 \simeq 6"),
        ("5", r"5 \cong 6"),
        ("5", r"x \neq 5"),
        ("5", "x ≠ 5"),
        ("5", r"5 \mod 6"),
        ("5", "5'"),
        ("5", r"5^{\prime}"),
        ("y", "y'"),
        (r"x \neq 5", r"x \neq 6"),
        ("101", "101_2"),
        ("5", r"\boxed{}"),
        ("1", "(" * 13 + "1" + ")" * 13),
    ],
)
def test_what_math_verify_alone_takes_from_a_larger_answer_is_wrong(expected, answer):
    assert Mathematics()(expected, answer) == 0


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        (r"\[5\]", r"\(5\)"),
        ("$5", "5"),
        (r"\$5", "5"),
        ("1000", "1e3"),
        ("x^2", "x**2"),
        (r"\frac{3}{2}", "1 1/2"),
        ("1234", r"1\,234"),
        ("5", "2+3 = 4+1 = 5"),
        ("x+1", "f(x) = x+1"),
        ("7", r"\frac{dy}{dx} = 7"),
        ("2x", "f'(x) = 2x"),
        ("y'", "y'"),
        (r"x \neq 5", r"x \neq 5"),
    ],
)
def test_plain_notations_are_read(expected, answer):
    assert Mathematics()(expected, answer) == 1
