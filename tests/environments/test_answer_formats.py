"""Formats of answers: what is read out of a completion, and what its form is worth."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lightning.environments import answer_formats
from rl_lightning.environments.answer_formats import answer_format
from rl_lightning.types import UserError
from tests.environments.work_done import lines_run

PATTERN = r"Answer: (?P<answer>.*)"
NAMED = ("tags", "boxed", "last_line", "last_number")
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
PIECES = st.lists(st.sampled_from((*TAGS, "x", " ", "\n", "7", "{", "}", r"\boxed{", ".")), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>1+1=2</think><answer> 2 </answer>", "2"),
        ("<answer>1</answer> no: <answer>2</answer>", "2"),
        ("<answer>1</answer> cut off <answer>2", "1"),
        ("<answer>a<answer>b</answer></answer>", "b"),
        ("<answer>a</answer> b</answer>", "a"),
        ("a</answer><answer>", None),
        ("<Answer>2</Answer>", None),
        ("", None),
        ("<answer>\n[1, 2]\n</answer>", "[1, 2]"),
    ],
)
def test_the_last_well_formed_pair_wins(text, answer):
    assert answer_format("tags").extract(text) == answer


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("boxed", r"so \boxed{5}.", "5"),
        ("boxed", r"\boxed{1} no: $\boxed{ \frac{1}{2} }$", r"\frac{1}{2}"),
        ("boxed", r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("boxed", r"\boxed{1} cut off \boxed{2", "1"),
        ("boxed", r"\boxed{1\boxed{2}3}", "2"),
        ("boxed", r"{ \boxed{1", None),
        ("boxed", r"}} \boxed {1}", "1"),
        ("boxed", "boxed{1}", None),
        ("last_line", "a\n\n 5 \n \n", "5"),
        ("last_line", " \n", None),
        ("last_number", "5 apples, no, 1,234.5 apples.", "1,234.5"),
        ("last_number", "2 + 3 = **-5**", "-5"),
        ("last_number", "5\u2212\u22127", "\u22127"),
        ("last_number", "it is 5/2", "5/2"),
        ("last_number", "it is 5%", "5%"),
        ("last_number", "1.234,5", "1.234,5"),
        ("last_number", "1e5", "1e5"),
        ("last_number", "H2O", None),
        ("last_number", "none", None),
        (PATTERN, "Answer: 1\nAnswer: 2 \n", "2"),
        (PATTERN, "2", None),
        ("a(?P<answer>b)?", "ab a", None),
    ],
)
def test_each_format_finds_its_answer(name, text, answer):
    assert answer_format(name).extract(text) == answer


@pytest.mark.parametrize(
    ("text", "well_formed"),
    [
        ("<think></think><answer>2</answer>", True),
        ("  <think>a\nb</think>\n\n<answer>2</answer>\n", True),
        ("<answer>2</answer>", False),
        ("<think>x</think><answer>2</answer> and more", False),
        ("hm <think>x</think><answer>2</answer>", False),
        ("<think>x</think> so <answer>2</answer>", False),
        ("<answer>2</answer><think>x</think>", False),
        ("<think>x</think><answer>2</answer><answer>2</answer>", False),
        ("<think>x<think></think><answer>2</answer>", False),
    ],
)
def test_well_formed_is_one_think_section_then_one_answer(text, well_formed):
    assert answer_format("tags").is_well_formed(text) is well_formed


@pytest.mark.parametrize(
    ("name", "text", "degree"),
    [
        ("tags", "<think>x</think> <answer>2</answer>", 1),
        ("tags", "<think>x</think> <answer>2</answer> more", 0.75),  # text after the end
        ("tags", "<think>x</think> so <answer>2</answer>", 0.75),  # text in between
        ("tags", "<think> </think><answer>2</answer>", 0.75),  # an empty section
        ("tags", "<think></think><answer></answer>", 0.5),
        ("tags", "<think>x</think><answer>2", 0.75),
        ("tags", "<think>x", 0.25),
        ("tags", "<answer>2</answer>", 0.5),
        ("tags", "<answer>2</answer><think>x</think>", 0.5),  # the wrong order
        ("tags", "</answer>2<answer></think>x<think>", 0),
        ("tags", "<think>x<answer>1</answer></think><answer>2</answer>", 0.25),  # an answer while thinking
        ("tags", "<think>" * 9 + "</think>" * 9 + "<answer>" * 9 + "</answer>" * 9, 0),
        ("tags", "<think>x</think><answer>1</answer><answer>2</answer>", 0.5),
        ("boxed", r"x \boxed{5}", 1),
        ("boxed", r"\boxed{5} \boxed{5}", 0.5),
        ("boxed", r"\boxed{}", 0.5),
        ("boxed", r"\boxed{5", 0.5),
        ("boxed", "5", 0),
        ("last_line", "x\n5", 1),
        ("last_line", "\n", 0),
        ("last_number", "it is 5.", 1),
        ("last_number", "5 it is", 0.5),
        ("last_number", "five", 0),
        (PATTERN, "Answer: 5", 1),
        (PATTERN, "Answer: ", 0),
    ],
)
def test_what_is_half_right_is_worth_something(name, text, degree):
    assert answer_format(name).degree(text) == degree


@settings(deadline=None, max_examples=300)
@given(PIECES, st.sampled_from((*NAMED, PATTERN)))
def test_only_what_is_well_formed_is_worth_all(text, name):
    form = answer_format(name)
    assert 0 <= form.degree(text) <= 1
    assert form.degree(text) < 1 or (form.is_well_formed(text) and form.extract(text))


@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)))
def test_the_next_right_tag_never_costs_anything(present):
    """Whatever tags are missing, one of these put into its place."""

    def text(tags):
        first, second, third, fourth = (tag if there else "" for tag, there in zip(TAGS, tags, strict=True))
        return f"{first}x{second} {third}5{fourth}"

    degree = answer_format("tags").degree
    for place in [place for place, there in enumerate(present) if not there]:
        assert degree(text(present)) <= degree(text((*present[:place], True, *present[place + 1 :])))


@settings(deadline=None, max_examples=500)
@given(PIECES)
def test_no_fault_of_tags_earns_more_than_its_repair(text):
    """A repeated tag left out, an empty section filled, text around the sections left out."""
    degree = answer_format("tags").degree
    repaired = [
        re.sub("<think></think>", "<think>x</think>", text),
        re.sub("<answer></answer>", "<answer>5</answer>", text),
    ]
    repaired += [re.sub("^[^<]*<think>", "<think>", text), re.sub("</answer>[^<]*$", "</answer>", text)]
    repaired += [re.sub("</think>[^<]*<answer>", "</think><answer>", text)]
    for tag in TAGS:
        copies = [copy.span() for copy in re.finditer(tag, text)]
        repaired += [text[:start] + text[end:] for start, end in copies if len(copies) > 1]
    assert all(degree(text) <= degree(better) for better in repaired)


@given(st.permutations(["<think>", "x", "</think>", "<answer>", "5", "</answer>"]))
def test_no_other_order_is_worth_as_much(pieces):
    text = "".join(pieces)
    right = text in ("<think>x</think><answer>5</answer>", "<think>5</think><answer>x</answer>")
    assert (answer_format("tags").degree(text) == 1) is right


HOSTILE = [
    "<answer>",
    "</answer>",
    "<answer></answer>",
    r"\boxed{",
    "{",
    "}",
    r"\boxed{}",
    "\\",
    "7",
    "7,",
    "-",
    "\n",
    " ",
    "a",
]


@pytest.mark.parametrize("text", [*HOSTILE, r"\boxed ", "<think>", "</think><answer>"])
@pytest.mark.parametrize("name", NAMED)
def test_reading_is_linear(name, text):
    """reasoning-gym's extraction needs 1.2 s for 4,000 opening tags, and its time grows with the square: it would never end."""
    form = answer_format(name)
    for read in (form.extract, form.is_well_formed, form.degree):
        some, ten_times_as_many = (lines_run(read, text * number) for number in (10_000, 100_000))
        assert ten_times_as_many <= 11 * some


def test_nesting_is_linear_too():
    text = r"\boxed{" * 100_000 + "7" + "}" * 100_000
    assert answer_format("boxed").extract(text) == "7"
    assert answer_format("boxed").degree(text) == 0.5


@pytest.mark.parametrize(
    ("pattern", "text"),
    [(r"(?P<answer>(?:x|x)+)[yw]", "x" * 100 + "z"), (r"A(?P<answer>.*?)B.*?[CD]", "AB" * 100_000)],
)
def test_a_regular_expression_that_would_never_end_finds_nothing(pattern, text, monkeypatch):
    """The first takes a time that doubles with each letter; of the second, the cube."""
    monkeypatch.setattr(answer_formats, "PATTERN_SECONDS", 0.05)
    form = answer_formats.answer_format(pattern)
    assert form.extract(text) is None
    assert form.degree(text) == 0
    assert form.extract("x" * 9 + "y" if "x" in pattern else "A5BC")  # which it finds in other texts


@settings(deadline=None)
@given(st.text(alphabet="<>/answer think1\\boxed{}\n,.-"), st.sampled_from((*NAMED, PATTERN)))
def test_nothing_that_a_model_writes_is_an_error(text, name):
    form = answer_format(name)
    assert form.extract(text) is None or isinstance(form.extract(text), str)
    assert form.is_well_formed(text) in (True, False)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("thinking", ["", "2 and 3\nare 5, {so}"])
def test_what_is_written_is_read_again(name, thinking):
    form = answer_format(name)
    text = form.write(thinking, " -5 ")
    assert form.extract(text) == "-5"
    assert form.is_well_formed(text)
    assert thinking in text


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("last_line", "1\n2"),
        ("last_number", "five"),
        ("tags", "</answer>"),
        ("boxed", "}"),
        (PATTERN, "5"),
        ("tags", "<think>"),
    ],
)
def test_what_a_format_cannot_write_is_one_line(name, answer):
    with pytest.raises(UserError, match=r"^data\.answer_format: [^\n]*$"):
        answer_format(name).write("", answer)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "box",
            "'box' is not allowed; it must be tags, boxed, last_line, last_number, or a regular expression with a group",
        ),
        (r"(?P<number>\d)", "is not allowed"),
        ("(?P<answer>", "is not a regular expression: "),
        ("", "is not allowed"),
    ],
)
def test_other_names_are_refused_in_one_line(name, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        answer_format(name)
    assert str(caught.value).startswith("data.answer_format: ")
    assert "\n" not in str(caught.value)


def test_each_format_asks_for_itself():
    assert "<think>your working</think> <answer>your answer</answer>" in answer_format("tags").instructions
    assert r"\boxed{}" in answer_format("boxed").instructions
    assert "last line" in answer_format("last_line").instructions
    assert "number" in answer_format("last_number").instructions
    assert answer_format(PATTERN).instructions == ""
