"""What is right stays right under the dress that is taken off answers, and what is wrong stays wrong, in every answer format."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rl_lightning.environments.answer_formats import answer_format
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.one_problem import OneProblem
from rl_lightning.environments.verifiers import Choice, ExactText, Items, JSONValue, Mathematics, Number, Pattern
from rl_lightning.types import Problem

DRESS = [
    "{}",
    "**{}**",
    "`{}`",
    "${}$",
    r"\boxed{{{}}}",
    r"\({}\)",
    r"**\boxed{{{}}}**",
    "The answer is {}.",
    "The final answer is: **{}**.",
    "Answer: {}",
    "{}.",
]
FORMATS = {"tags": "<think>7</think> <answer>{}</answer>", "boxed": r"7, so \boxed{{{}}}", "last_line": "7, so\n{}"}
WORDS = st.lists(st.text("abcdeé", min_size=1, max_size=4), min_size=1, max_size=4)


def scores(verifier, expected: str, answer: str, form: str, dress: str) -> tuple[float | str, str]:
    """What the answer in its dress gets by the real path, and why."""
    problem = Problem("What is it?", expected, task="own")
    mixture = EnvironmentMixture({"own": TaskSpec(environment=OneProblem(problem, verifier))})
    extracted = answer_format(form).extract(FORMATS[form].format(dress.format(answer)))
    assert mixture.refuse(problem, extracted) is None
    (score,) = mixture.verify_all([(problem, extracted)])
    return score, mixture.explain(problem, extracted)


def check(data, verifier, expected: str, right: list[str], wrong: list[str]) -> None:
    form, dress = data.draw(st.sampled_from(list(FORMATS))), data.draw(st.sampled_from(DRESS))
    answer = data.draw(st.sampled_from(right))
    score, why = scores(verifier, expected, answer, form, dress)
    assert score == 1, (expected, answer, form, dress, why)
    answer = data.draw(st.sampled_from(wrong))
    score, why = scores(verifier, expected, answer, form, dress)
    assert score != 1, (expected, answer, form, dress, why)


def numbers(number: Fraction) -> list[str]:
    """Ways to write a number with at most two decimals."""
    cents = int(number * 100)
    whole = f"{'-' if cents < 0 else ''}{abs(cents) // 100}"
    decimals = f".{abs(cents) % 100:02d}"
    spaced = f"{int(whole.lstrip('-')):,}".replace(",", "\u202f")
    separated = f"{'-' if cents < 0 else ''}{abs(cents) // 100:,}"
    ways = [whole + decimals, separated + decimals, f"{cents}e-2", f"{cents * 3}/300", f"{whole}{decimals}000"]
    ways += [f"{'-' if cents < 0 else ''}{spaced}{decimals}", whole.replace("-", "\u2212") + decimals]
    ways += [f"{separated}{decimals} km/h", f"{whole}{decimals}%", f"€{whole}{decimals}".replace("€-", "-€")]
    return (
        ways + [f"+{whole}{decimals}"] * (cents >= 0) + [whole, f"+{separated}".replace("+-", "-")] * (cents % 100 == 0)
    )


@settings(max_examples=600)
@given(st.integers(-(10**9), 10**9), st.integers(-(10**4), 10**4).filter(bool), st.data())
def test_numbers(cents, off, data):
    number, verifier = Fraction(cents, 100), Number(units=["km", "km/h", "%", "€"])
    check(
        data,
        verifier,
        data.draw(st.sampled_from(numbers(number))),
        numbers(number),
        numbers(number + Fraction(off, 100)),
    )


@settings(max_examples=150)
@given(
    st.integers(-(10**7), 10**7), st.integers(1, 10**4), st.sampled_from(["{}", "**{}**", r"\boxed{{{}}}", "It is {}."])
)
def test_the_last_number(cents, off, dress):
    def readable(number):
        return [way for way in numbers(number) if "\u202f" not in way and "€" not in way]

    number, form, verifier = Fraction(cents, 100), answer_format("last_number"), Number(units=["km/h", "%"])
    for way in readable(number):
        problem = Problem("What is it?", way, task="own")
        mixture = EnvironmentMixture({"own": TaskSpec(environment=OneProblem(problem, verifier))})
        right, wrong = readable(number), readable(number + off)
        texts = [form.extract(f"7 or so. {dress.format(answer)}") for answer in right + wrong]
        assert mixture.verify_all([(problem, text) for text in texts]) == [1.0] * len(right) + [0.0] * len(wrong)


@settings(max_examples=150)
@given(WORDS, st.data())
def test_text(words, data):
    text = " ".join(words)
    decomposed = text.replace("é", "e\u0301")
    check(
        data,
        ExactText(),
        text,
        [text.upper(), "  ".join(words), decomposed, f"\u200b{text}"],
        [f"{text} f", f"f{text}"],
    )


@settings(max_examples=150)
@given(st.sampled_from("ABCDE"), st.sampled_from("ABCDE"), st.data())
def test_choices(letter, other, data):
    assume(letter != other)
    right = [letter, letter.lower(), f"({letter})", f"{letter})"]
    check(data, Choice(), letter, right, [other, f"({other})", f"{letter} or {other}", f"{letter}) {other})", "F"])
    whole = [f"{letter}) New York", f"{letter}. new york", "New York", letter]
    check(data, Choice(), f"({letter}) New York", whole, [other, f"{other}) New York", f"{letter}) Rome", "Rome"])


@settings(max_examples=150)
@given(WORDS, st.data())
def test_items(words, data):
    words = [*words, "a, b", "(x, y)"]
    quoted = [f'"{word}"' for word in words]
    shuffled = data.draw(st.permutations(quoted))
    right = [", ".join(quoted), f"[{','.join(shuffled)}]", f"{{{', '.join(shuffled)}}}"]
    wrong = [
        ", ".join(quoted[1:]),
        ", ".join([*quoted, "f"]),
        ", ".join([*quoted[:-1], '"(x, z)"']),
        ", ".join(words[:-1]),
    ]
    check(data, Items(), ", ".join(quoted), right, wrong)
    if (other := list(reversed(quoted))) != quoted:
        check(data, Items(ordered=True), ", ".join(quoted), right[:1], [", ".join(other)])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text("abcé", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
@given(VALUES, st.data())
def test_json(value, data):
    value = {"z": value, "y": 1}
    turned = dict(reversed(value.items()))
    right = [json.dumps(value), json.dumps(turned, ensure_ascii=False), json.dumps(value, separators=(",", ":"))]
    right.append(json.dumps({"z": value["z"], "y": 1.0}))
    wrong = [{**value, "y": True}, {**value, "x": 0}, {"z": value["z"]}, {**value, "z": [value["z"]]}, [value]]
    wrong_texts = [json.dumps(each) for each in wrong] + [json.dumps(value) + ",", f"{json.dumps(value)} {{}}"]
    twice = json.dumps(value)[:-1] + ', "y": 1}'
    check(data, JSONValue(), right[0], right, [*wrong_texts, twice])


@settings(max_examples=150)
@given(st.integers(10, 99), st.data())
def test_patterns(number, data):
    right, wrong = [f"{number} apples", f"{number} apple"], [f"{number} pears", f"{number} apples 7", "apples"]
    check(data, Pattern(r"\d\d apples?"), "12 apples", right, wrong)
    check(data, Pattern(), r"\d\d apples?", right, wrong)


@settings(max_examples=60)
@given(st.integers(2, 9), st.integers(1, 9), st.data())
def test_mathematics(a, b, data):
    pytest.importorskip("math_verify", reason="needs the extra [math]")
    right = [f"{a}x+{b}", f"{b} + {a}*x", rf"{a} \cdot x + \frac{{{2 * b}}}{{2}}", f"y = {a}x+{b}", f"x*{a}+{b}.0"]
    wrong = [f"{a}x-{b}", f"{a + 1}x+{b}", f"{a}x+{b} or {a}x", f"{a}x = {a}x+{b}", f"{a}x^2+{b}", f"not {a}x+{b}"]
    check(data, Mathematics(), right[0], right, wrong)
