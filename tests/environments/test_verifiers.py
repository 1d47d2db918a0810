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
    (ExactText(), "New\u00a0York", "\ufeffNew\u200b York"),
    (Number(), "1234567.5", "1 234 567.5"),
    (Number(), "1234567", "1\u2009234\u2009567"),
    (Number(units=["km/h"]), "1,234 km/h", "1 234 km/h"),
    (Number(units=["km/h"]), "1/2 km/h", "0.5"),
    (Number(units=["%"]), "5%", r"5\%"),
    (Number(tolerance=0.3), "1", "1.3"),
    (Number(), "1e400", "1" + "0" * 400),
    (Number(), "9" * 900, "9" * 900),
    (Choice(), "B) New York", "new york"),
    (Choice(), "B) New York", "B"),
    (Choice("АБВ"), "Б", "(б)"),
    (Items(), '"Paris, France", Rome', "[rome, 'Paris, France']"),
    (Items(), "(1, 2), (3, 4)", "[(3, 4), (1, 2)]"),
    (Items(), "rock 'n' roll, dogs'", "dogs', rock 'n' roll"),
    (Items(separator=" "), "a b", "b   a"),
    (Items(separator="\n"), "a\nb", "b\r\n\r\na"),
    (JSONValue(), "[1]", "```json\n[1]\n```"),
    (Pattern(""), "anything", " "),
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
    (Pattern(""), "anything", "anything"),
    (ExactText(ignore_punctuation=True), "5", "-5"),
    (ExactText(ignore_punctuation=True), "1.5", "1 5"),
    *((Number(), "1234.5", answer) for answer in ("1.234,5", "1 234,5", "1,2345", "1 23 4.5", "12 34.5")),
    *(
        (Number(), "5", answer)
        for answer in ("NaN", "inf", "-Infinity", "1e400", "5e0000", "5²", "５", "5/0", "0/5", "5%", "$5")
    ),
    (Number(), "1 234", "1.234"),
    (Number(), "1.5", "1 1/2"),
    (Number(units=["km", "km/h"]), "5 km/h", "5 km/s"),
    (Number(), "9" * 900, "9" * 1001),
    (Choice(), "B", "C) B"),
    (Choice(), "B) Paris", "B) Rome"),
    (Choice(), "B) Paris", "A) Paris"),
    (Choice(), "B", "\u0412"),
    (Items(), "(1, 2), (3, 4)", "(1, 4), (3, 2)"),
    (Items(), "a, b", "a, 'b"),
    (Items(), "dogs", "dogs'"),
    (Items(), '"Paris, France"', "Paris, France"),
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


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("NaN", "is not JSON"),
        ("Infinity", "is not JSON"),
        ("-Infinity", "is not JSON"),
        ("1e400", "is too large"),
        ('{"a": 1, "a": 2}', "the key 'a' twice"),
        ('[{"a": 1, "a": 1}]', "the key 'a' twice"),
    ],
)
def test_what_is_not_json_is_no_answer(answer, said):
    with pytest.raises(ValueError, match=said):
        JSONValue()("1", answer)


EXPLAINED = [
    (ExactText(), "New York", "new  york", "read as 'new york'; expected 'new york'"),
    (ExactText(), "a", "b" * 100, f"read as '{'b' * 60}… (100 characters)'; expected 'a'"),
    (Number(), "1,200", "1200.0", "read as 1200; expected 1200"),
    (Number(), "-0.75", "-7/9", "read as -7/9; expected -0.75"),
    (Number(tolerance=0.5), "5", "5.25", "read as 5.25; expected 5; they may differ by 0.5"),
    (Number(), "5", "five", "not a number: 'five'; expected 5"),
    (Choice(), "B", "(b)", "letter B; expected B"),
    (Choice(), "B) Paris", "B. Rome", "letter B, but with another text: 'Rome'; expected B) Paris"),
    (Choice(), "B", "F", "not one of the letters ABCDE: 'F'; expected B"),
    (Items(), "a, b", "b, a", "the same items: 'b', 'a'"),
    (Items(), "a, b", "a, c, c", "missing: 'b'; not expected: 'c'"),
    (Items(ordered=True), "a, b", "b, a", "the same items in another order: 'b', 'a'; expected 'a', 'b'"),
    (Items(), "", "[]", "no items, as expected"),
    (JSONValue(), "[1]", "[1.0]", "the same value"),
    (JSONValue(), '{"a": [1, 2]}', '{"a": [1, 3]}', "at $.a[1]: 3; expected 2"),
    (JSONValue(), '{"a": 1}', "{}", "at $: the key 'a' is missing"),
    (JSONValue(), "[true]", "[1]", "at $[0]: 1; expected true"),
    (JSONValue(), "[1]", "[1", "not JSON: Expecting ',' delimiter: line 1 column 3 (char 2): '[1'"),
    (Pattern(r"\d+ apples?"), "", "12 apples", r"'\d+ apples?' matches '12 apples'"),
    (
        Pattern(r"\d+ apples?"),
        "",
        "12 apples or 13",
        r"'\d+ apples?' matches '12 apples' and not all of '12 apples or 13'",
    ),
    (Pattern(r"\d+ apples?"), "", "pears", r"'\d+ apples?' does not match 'pears'"),
]


@pytest.mark.parametrize(("verifier", "expected", "answer", "said"), EXPLAINED)
def test_a_verdict_is_explained(verifier, expected, answer, said):
    assert verifier.explain(expected, answer).replace("\\\\", "\\") == said


@pytest.mark.parametrize(("verifier", "expected", "answer"), [*RIGHT, *WRONG])
def test_every_verdict_is_explained_in_one_line(verifier, expected, answer):
    said = verifier.explain(expected, answer)
    assert said
    assert "\n" not in said


def test_a_pattern_that_backtracks_for_ever_is_stopped():
    with pytest.raises(TimeoutError):
        Pattern(r"(a|aa)+$")("", "a" * 200 + "b")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Number(tolerance=-1), "verifier.tolerance: -1"),
        (lambda: Number(relative_tolerance=float("nan")), "verifier.relative_tolerance"),
        (lambda: Choice("A1"), "verifier.letters"),
        (lambda: Number(units=[""]), "verifier.units"),
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
    assert same.explain(r"\frac{1}{2}", "0.25") == "read as 0.250000000000000; expected 1/2"
    assert same.explain("5", "$5$, no $6$") == "not mathematics as a whole: '$5$, no $6$'; expected 5"
    assert same.explain("5", "6 = 5") == "read as Eq(6, 5); its sides differ; expected 5"
    assert same.explain("5", r"\foo{5}") == r"read as the text '\\foo{5}'; expected 5"


def test_a_json_schema_decides_alone():
    pytest.importorskip("jsonschema", reason="needs the extra [json]")
    verifier = JSONValue({"type": "object", "required": ["name"]})
    assert verifier("", '{"name": 1}') == 1
    assert verifier("", "{}") == 0
    verifier.check_expected("")
    with pytest.raises(ValueError, match="does not accept"):
        verifier.check_expected("{}")
    assert verifier.explain("", "{}") == "schema: at $: 'name' is a required property"
    assert verifier.explain("", '{"name": 1}') == "the schema accepts it"
    with pytest.raises(UserError, match="not a JSON Schema"):
        JSONValue({"type": "nothing"})
