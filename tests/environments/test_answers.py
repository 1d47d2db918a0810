from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rl_lightning.environments.answers import extract_answer, is_well_formed

from tests.environments.work_done import lines_run


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
    assert extract_answer(text) == answer


@pytest.mark.parametrize("tags", ["<answer>", "</answer>", "<answer></answer>"])
def test_extraction_is_linear(tags):
    """The upstream function needs 1.2 s for 4,000 opening tags, and its time grows with the square: here it would never end."""
    for read in (extract_answer, is_well_formed):
        some, ten_times_as_many = (lines_run(read, tags * number) for number in (20_000, 200_000))
        assert ten_times_as_many <= 10 * some


@settings(deadline=None)
@given(st.text(alphabet="<>/answer think1"))
def test_nothing_that_a_model_writes_is_an_error(text):
    assert extract_answer(text) is None or isinstance(extract_answer(text), str)
    assert is_well_formed(text) in (True, False)


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
    assert is_well_formed(text) is well_formed
