"""The dress of chat around an answer is taken off where the meaning stays, and no wrong answer becomes right by it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lightning.environments import Environment
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.plain_answers import plain_answers
from rl_lightning.environments.reasoning_gym.task import task_names
from rl_lightning.types import Problem
from tests.conftest import ROOT
from tests.environments.reasoning_gym.right_answers import problems, right_answer, task
from tests.environments.work_done import lines_run
from tests.hostile_answers import hostile_answers

QUESTION = "Find the value of x. How many red apples is that?"

MARKS = (
    r"\boxed{5}",
    r"\boxed{\text{5}}",
    "**5**",
    "*5*",
    "***5***",
    "$5$",
    "$$5$$",
    r"\(5\)",
    r"\[5\]",
    "`5`",
    r"**$\boxed{5}$**.",
)
LEAD_INS = ("The answer is 5", "the final answer is: 5", "Answer: 5", "The answer is **5**.")
FOR_ALL = (*MARKS, *LEAD_INS, "5.")
FOR_NUMBERS = ("+5", "5 red apples", "5 red", "x = 5", "$x = 5$", "**5 red apples.**", "The answer is x = 5.")
WRONG = (
    *(
        "5 or 6",
        "5, 6",
        "5 thousand",
        "5%",
        "5 %",
        "5k",
        "1,23",
        "not 5",
        "-5",
        "\u22125",
        "5/2",
        "1.234,5",
        "5!",
        "5e1",
        "~5",
        "<5",
    ),
    *(
        "The answer is not 5",
        "The answer is 5 or 6",
        "**5** or **6**",
        "$5$ and $6$",
        r"\boxed{5}\boxed{6}",
        "y = 5",
        "x = 5, 6",
    ),
    *(
        "x = -5",
        "5 pears",
        "5 green apples",
        "5 hundred",
        "+-5",
        "--5",
        "5..",
        "5.5",
        "5-",
        "5 5",
        "-**5**",
        r"1\boxed{5}",
        "x > 5",
    ),
    *(
        "-**5**",
        "x = 5 or 6",
        "2x = 5",
        "5 = x",
        "5 dozen",
        "$5",
        "5 million red apples",
        "five",
        "05 + 1",
        "5 red apples or 6",
    ),
)


class Copy(Environment):
    """The answer must be the expected one, letter for letter."""

    def __init__(self, expected: str = "5") -> None:
        self.config = {"expected": expected}

    def problem(self, seed):
        return Problem(QUESTION, expected=self.config["expected"], task="copy")

    def verify(self, problem, answer):
        return float(answer == problem.expected)


def full_marks(mixture, problem, answer):
    """Whether it is right on the whole way: refused, or verified."""
    return mixture.refuse(problem, answer) is None and mixture.verify_all([(problem, answer)]) == [1.0]


def copied(expected, answer):
    mixture = EnvironmentMixture({"copy": TaskSpec(environment=Copy(expected))})
    return full_marks(mixture, mixture.problem("copy", 0, 0), answer)


@pytest.mark.parametrize("answer", [*FOR_ALL, *FOR_NUMBERS])
def test_a_dressed_number_is_right(answer):
    assert copied("5", answer)


@pytest.mark.parametrize("answer", WRONG)
def test_what_an_examiner_would_not_take_for_five_is_wrong(answer):
    assert not copied("5", answer)


@pytest.mark.parametrize(
    "answer", ["**5** or **6**", "$5$ and $6$", r"\boxed{5} or \boxed{6}", "`5` or `6`", r"\(5\) or \(6\)"]
)
def test_two_marks_are_not_one(answer):
    """Else a verifier that looks for an answer could find either in what is between."""
    assert plain_answers(Problem(QUESTION, expected="5"), answer) == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("1,234", "1234"),
        ("1,234,567.5", "1234567.5"),
        ("\u22125", "-5"),
        ("-1,234 red apples", "-1234"),
        ("$-5$", "-5"),
    ],
)
def test_numbers_may_be_written_as_in_print(answer, expected):
    assert copied(expected, answer)
    assert not copied("5", answer)


@pytest.mark.parametrize("answer", ["12,34", "1,2345", "0,123,4", ",123", "1,234,", "1.234,567", "1234,567"])
def test_only_whole_groups_of_thousands_are_joined(answer):
    assert not copied(answer.replace(",", "").strip("."), answer)


@pytest.mark.parametrize("answer", FOR_ALL)
def test_marks_lead_ins_and_full_stops_go_around_words_too(answer):
    assert copied("yes", answer.replace("5", "yes"))


@pytest.mark.parametrize("answer", [*FOR_NUMBERS, "1,234"])
def test_words_are_not_read_as_numbers(answer):
    assert not copied("5 or more", answer.replace("5", "5 or more"))
    assert not copied("a list 1234", answer)


@pytest.mark.parametrize("right", ["**5**", "5.", "`a`", "The answer is 5", "+5", "1,234"])
def test_what_is_right_as_written_is_right(right):
    assert copied(right, right)


class Hostile(Copy):
    """Refuses what is not a digit, and would run all else."""

    def refuse(self, problem, answer):
        return None if answer.isdigit() else "not_a_digit"

    def verify(self, problem, answer):
        assert answer.isdigit(), "an answer that was refused was verified"
        return {"5": 1.0, "4": 0.5, "3": math.nan}.get(answer, 0.0)


@pytest.mark.parametrize(
    ("answer", "refusal", "outcome"),
    [
        ("**5**", None, 1.0),
        ("**4**", None, 0.5),
        ("**9**", None, 0.0),
        ("**run()**", "not_a_digit", None),
        ("5 6", "not_a_digit", None),
    ],
)
def test_a_plain_reading_is_refused_by_the_tasks_own_rules(answer, refusal, outcome):
    mixture = EnvironmentMixture({"copy": TaskSpec(environment=Hostile())})
    problem = mixture.problem("copy", 0, 0)
    assert mixture.refuse(problem, answer) == refusal
    assert refusal or mixture.verify_all([(problem, answer)]) == [outcome]


def test_what_the_verifier_raises_or_returns_for_a_plain_reading_is_kept():
    mixture = EnvironmentMixture({"copy": TaskSpec(environment=Hostile())})
    problem = mixture.problem("copy", 0, 0)
    (outcome,) = mixture.verify_all([(problem, "**3**")])
    assert math.isnan(outcome)


@pytest.mark.parametrize("name", task_names())
def test_a_dressed_right_answer_to_each_task_is_right(name):
    chosen = task(name, max_moves=7) if name == "rush_hour" else task(name)
    asked = [chosen.problem(i) for i in range(2)] if name == "rush_hour" else problems(name)[:2]
    mixture = EnvironmentMixture({name: TaskSpec(config=chosen.config)})
    for problem in (replace(p, task=name) for p in asked):
        right = right_answer(problem.payload, name)
        if not right or not full_marks(mixture, problem, right):
            continue  # test_right_answers.py says why
        dresses = [r"\boxed{%}", "**%**", "`%`", "The answer is %"] + (["%."] if not right.endswith(".") else [])
        for dress in dresses:
            assert full_marks(mixture, problem, dress.replace("%", right)), dress


@pytest.mark.parametrize("name", task_names())
def test_no_dress_makes_a_hostile_answer_right(name, tmp_path):
    """Whatever a task's own rules refuse they refuse in any dress; the rest is wrong, and runs nothing. The dresses take turns, so
    that each answer has each of them in a third of the tasks."""
    problem = replace(problems(name)[0], task=name)
    mixture = EnvironmentMixture({name: TaskSpec(config=task(name).config)})
    right = str(problem.expected)
    dresses = cycle(["%", "**%**", "The answer is %."])
    for _ in range(task_names().index(name) % 3):
        next(dresses)
    for text, dress in zip(hostile_answers(problem, str(tmp_path / "ran")), dresses):  # noqa: B905
        dressed = dress.replace("%", text)
        if text.strip() in right or f"{text}.0" in right or not plain_answers(problem, dressed):
            continue  # tests of the task's own rules have what is not plain
        assert not full_marks(mixture, problem, dressed), dressed[:80]
    assert list(tmp_path.iterdir()) == []


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="5 .,+-*$`\\{}boxedtext()[]=x\u2212", max_size=60), st.sampled_from(["5", "yes", None]))
def test_no_text_is_an_error_and_readings_are_few(text, expected):
    readings = plain_answers(Problem(QUESTION, expected=expected), text)
    assert len(readings) <= 2
    assert text.strip() not in readings
    assert all(reading and len(reading) <= len(text) for reading in readings)


@settings(deadline=None)
@given(
    st.integers(-10_000, 10_000),
    st.integers(-10_000, 10_000),
    st.sampled_from([*MARKS, *LEAD_INS, "5.", "x = 5", "5 red apples"]),
)
def test_a_dressed_number_is_never_another_number(written, expected, dress):
    assert copied(str(expected), dress.replace("5", str(written))) is (written == expected)


@pytest.mark.parametrize(
    "mark", ["*", "**", "$", "`", r"\boxed{", "{", "}", "the answer is ", "answer: ", "5,", ".", "x = ", " "]
)
def test_reading_takes_linear_time(mark):
    problem = Problem(QUESTION, expected="5")
    some, ten_times_as_many = (lines_run(plain_answers, problem, mark * number + "5") for number in (10_000, 100_000))
    assert ten_times_as_many <= 11 * some


def rows_of_the_page():
    """What the page says is written, and what it is read as (None: as written)."""
    section = (ROOT / "docs" / "scoring.md").read_text().partition("## The dress around")[2].partition("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    for written, read, *_ in rows:
        spans = [wide or narrow for wide, narrow in re.findall(r"`` (.+?) ``|`([^`]+)`", written)]
        values = [None] * len(spans) if read.startswith("as written") else read.strip().split(", ")
        yield from zip(spans, values if len(values) == len(spans) else values * len(spans), strict=True)


def test_the_table_on_the_page_is_what_happens():
    rows = list(rows_of_the_page())
    assert len(rows) > 40
    assert [row for row in rows if copied(row[1] or "5", row[0]) is (row[1] is None)] == []


def test_the_page_has_what_is_dressed_and_what_is_wrong():
    written = {text for text, _ in rows_of_the_page()}
    assert set(WRONG) & written >= {"5 or 6", "1,23", "5%", "-5", "5/2", "1.234,5", "5 thousand", "not 5", "y = 5"}
    assert {*FOR_ALL, *FOR_NUMBERS} & written >= {*MARKS[2:4], *MARKS[5:10], *LEAD_INS[:1], "5.", "+5", "x = 5"}
