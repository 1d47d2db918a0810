"""The verifiers of answers to questions of one's own: what is right, what is wrong, and hostile answers."""

from __future__ import annotations

import contextlib
import pickle

import pytest

from rl_lightning.environments.verifiers import Choice, ExactText, Items, JSONValue, Mathematics, Number, Pattern
from rl_lightning.types import UserError

RIGHT = [
    (ExactText(), "New York", " new  york "),
    (ExactText(), "é", "e\u0301"),
    (ExactText(ignore_punctuation=True), "its 5 oclock", "It's 5 o'clock!".replace("'", "")),
    (Number(), "1234", "1,234"),
    (Number(), "1,234.50", "1234.5"),
    (Number(), "-5", "\u22125"),
    (Number(), "0.75", "3/4"),
    (Number(), "1200", "1.2e3"),
    (Number(), ".5", "0.50"),
    (Number(tolerance=0.01), "3.14159", "3.15"),
    (Number(relative_tolerance=0.01), "1000", "1010"),
    (Number(units=["$", "km", "%"]), "5", "$5"),
    (Number(units=["$", "km", "%"]), "-5", "-$5"),
    (Number(units=["$", "km", "%"]), "5 km", "5"),
    (Choice(), "B", "(b)"),
    (Choice(), "B", "B)"),
    (Choice(), "(B)", "B."),
    (Items(), "a, b, b", "[b, 'A', b]"),
    (Items(ordered=True), "1,2", "1, 2"),
    (Items(separator=";"), "x;y", "{y; x}"),
    (Items(), "", "[]"),
    (JSONValue(), '{"a": [1, true], "b": null}', '{"b": null, "a": [1.0, true]}'),
    (Pattern(), r"\d+ apples?", "12 apples"),
    (Pattern("[01]{3}"), "anything", " 101 "),
]
WRONG = [
    (ExactText(), "New York", "New York City"),
    (ExactText(ignore_case=False), "A", "a"),
    (ExactText(), "1.", "1"),
    (Number(), "1234", "1,23,4"),
    (Number(), "5", "5 apples"),
    (Number(), "5", "five"),
    (Number(), "5", ""),
    (Number(), "5", "."),
    (Number(), "0", "0/0"),
    (Number(), "5", "٥"),
    (Number(), "0.1", "0.1000000000000000055"),
    (Number(tolerance=0.01), "3.14", "3.1501"),
    (Choice(), "B", "B or C"),
    (Choice(), "B", "F"),
    (Choice("AB"), "B", "C"),
    (Items(), "a, b, b", "a, b"),
    (Items(ordered=True), "1,2", "2,1"),
    (JSONValue(), "1", "true"),
    (JSONValue(), '{"a": 1}', '{"a": 1, "b": 2}'),
    (JSONValue(), "[1]", "[1, 1]"),
    (Pattern(), r"\d+ apples?", "12 apples and pears"),
]
HOSTILE = [
    "9" * 10_000,
    "1e999999999",
    "[" * 5000,
    "(" * 5000,
    "," * 5000,
    "a" * 100_000,
    "\0",
    "1/" * 5000,
    "-" * 9000,
]


@pytest.mark.parametrize(("verifier", "expected", "answer"), RIGHT)
def test_right_answers(verifier, expected, answer):
    assert verifier(expected, answer) == 1
    assert pickle.loads(pickle.dumps(verifier))(expected, answer) == 1


@pytest.mark.parametrize(("verifier", "expected", "answer"), WRONG)
def test_wrong_answers(verifier, expected, answer):
    assert verifier(expected, answer) == 0


@pytest.mark.parametrize("answer", HOSTILE)
@pytest.mark.parametrize(("verifier", "expected"), {type(v): (v, e) for v, e, _ in RIGHT}.values())
def test_hostile_answers_are_wrong_or_raise(verifier, expected, answer):
    """Exponential work would never end."""
    with contextlib.suppress(ValueError, RecursionError):
        assert verifier(expected, answer) == 0


@pytest.mark.parametrize(("verifier", "expected"), [(Number(), "five"), (Choice(), "F"), (JSONValue(), "{")])
def test_an_expected_answer_that_is_none_is_an_error(verifier, expected):
    with pytest.raises(ValueError, match=r"expected answer|Expecting"):
        verifier(expected, "{}")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_not_json_is_no_answer(word):
    with pytest.raises(ValueError, match="is not JSON"):
        JSONValue()("1", word)


def test_a_pattern_that_backtracks_for_ever_is_stopped():
    with pytest.raises(TimeoutError):
        Pattern(r"(a|aa)+$")("", "a" * 200 + "b")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Number(tolerance=-1), "verifier.tolerance: -1"),
        (lambda: Number(relative_tolerance=float("nan")), "verifier.relative_tolerance"),
        (lambda: Choice("A1"), "verifier.letters"),
        (lambda: Items(separator=""), "verifier.separator"),
        (lambda: Pattern("("), "verifier.pattern: '\\(' is not a regular expression"),
    ],
)
def test_settings_out_of_range(make, said):
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize(
    ("verifier", "expected", "said"),
    [
        (Number(), "5", None),
        (Number(), "five", "the expected answer is not a number"),
        (Pattern(), r"\d+ apples?", None),  # which does not match itself
        (Pattern(), "(", "is not a regular expression"),
        (Pattern("[01]+"), "101", None),
        (Pattern("[01]+"), "102", "does not accept '102' as its own answer"),
    ],
)
def test_what_can_be_an_expected_answer(verifier, expected, said):
    with contextlib.nullcontext() if said is None else pytest.raises(ValueError, match=said):
        verifier.check_expected(expected)


def test_mathematics():
    pytest.importorskip("math_verify", reason="needs the extra [math]")
    same = Mathematics()
    for expected, answer in [
        (r"\frac{1}{2}", "0.5"),
        ("x^2+2x+1", "$(x+1)^2$"),
        ("{1,2}", r"\{2, 1\}"),
        ("5", r"\boxed{5}"),
    ]:
        assert same(expected, answer) == 1
    assert same("5", "6") == 0


def test_a_json_schema_decides_alone():
    pytest.importorskip("jsonschema", reason="needs the extra [json]")
    verifier = JSONValue({"type": "object", "required": ["name"]})
    assert verifier("", '{"name": 1}') == 1
    assert verifier("", "{}") == 0
    verifier.check_expected("")
    with pytest.raises(ValueError, match="does not accept"):
        verifier.check_expected("{}")
    with pytest.raises(UserError, match="not a JSON Schema"):
        JSONValue({"type": "nothing"})
