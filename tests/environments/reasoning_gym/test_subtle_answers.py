"""What is almost right is not paid in full, and what is honestly right is, in whatever dress."""

from __future__ import annotations

import json
import time

import pytest

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.reasoning_gym.task import task_names
from rl_lightning.types import Problem
from tests.environments.reasoning_gym.judging import is_right, may_be_right
from tests.environments.reasoning_gym.right_answers import asked, right_answer
from tests.honest_forms import FORMS
from tests.odd_answers import ODD_ANSWERS
from tests.subtle_answers import subtle_answers

_SEED = {"propositional_logic": 12}


def first_problem(name):
    """The task, a problem of it, and a right answer that is paid in full."""
    mixture = EnvironmentMixture({name: TaskSpec(config={"max_moves": 7} if name == "rush_hour" else {})})
    for problem in asked(mixture.tasks[name], range(_SEED.get(name, 3), 60)):
        right = str(right_answer(problem.payload, name)).strip()
        if paid(mixture, problem, right):
            return mixture, problem, right
    raise AssertionError(name)


def paid(mixture, problem, answer):
    return mixture.refuse(problem, answer) is None and mixture.verify_all([(problem, answer)]) == [1.0]


@pytest.mark.parametrize("name", task_names())
def test_what_is_almost_right_is_not_paid_in_full(name):
    mixture, problem, right = first_problem(name)
    for answer in subtle_answers(right):
        if paid(mixture, problem, answer) and not is_right(name, problem, answer, right):
            assert may_be_right(name, answer), ascii(answer)


def test_there_are_more_than_a_hundred_of_them():
    assert len(set(ODD_ANSWERS)) > 100
    assert len(subtle_answers("42")) > 300


@pytest.mark.parametrize("name", ["chain_sum", "products", "decimal_chain_sum", "number_format", "rectangle_count"])
def test_a_comma_stands_before_three_digits(name):
    mixture, problem, right = first_problem(name)
    for answer in (f"{right[:-1]},{right[-1]}", f"_{right}", f"{right[:1]}_{right[1:]}", f",{right}", f"{right},0"):
        assert not paid(mixture, problem, answer), answer


def test_separators_of_thousands_are_read_where_they_belong():
    mixture = EnvironmentMixture({"products": TaskSpec()})
    entry = {"question": "1 * 1234567", "answer": "1234567", "metadata": {}}
    problem = Problem(entry["question"], "1234567", payload=entry, task="products")
    assert paid(mixture, problem, "1,234,567")
    assert paid(mixture, problem, "+1,234,567.0")
    assert not paid(mixture, problem, "12,34567")
    assert not paid(mixture, problem, "1,234567")


def test_no_rule_takes_long_for_text_on_which_a_pattern_might_backtrack():
    """A rule that backtracks takes minutes for a thousand characters; this takes seconds for all of them."""
    began = time.process_time()
    for name in (
        "countdown",
        "knights_knaves",
        "boxnet",
        "tower_of_hanoi",
        "time_intervals",
        "advanced_geometry",
        "jugs",
    ):
        mixture, problem, _ = first_problem(name)
        for answer in ODD_ANSWERS:
            mixture.refuse(problem, answer)
    assert time.process_time() - began < 600


@pytest.mark.parametrize("name", task_names())
def test_a_right_answer_is_right_in_twenty_dresses(name):
    mixture, problem, right = first_problem(name)
    for form in FORMS:
        assert paid(mixture, problem, form.format(right).strip()), form


GRIDS = [
    "binary_matrix",
    "futoshiki",
    "mini_sudoku",
    "modulo_grid",
    "n_queens",
    "rotate_matrix",
    "sudoku",
    "game_of_life",
]


@pytest.mark.parametrize("name", GRIDS)
def test_spaces_at_the_ends_of_lines_do_not_count(name):
    mixture, problem, right = first_problem(name)
    assert paid(mixture, problem, "\n".join(f"{line}  " for line in right.split("\n")).strip())


@pytest.mark.parametrize(
    "name", ["group_anagrams", "jugs", "graph_color", "palindrome_partitioning", "game_of_life", "boxnet"]
)
def test_json_may_have_other_spaces(name):
    mixture, problem, right = first_problem(name)
    for text in (json.dumps(json.loads(right), indent=1), json.dumps(json.loads(right), separators=(",", ":"))):
        assert paid(mixture, problem, text)


@pytest.mark.parametrize(
    "name", ["syllogism", "course_schedule", "isomorphic_strings", "ransom_note", "mahjong_puzzle", "acre"]
)
def test_words_that_the_question_names_may_be_written_small_or_large(name):
    mixture, problem, right = first_problem(name)
    for text in (right.lower(), right.upper(), right.title()):
        assert paid(mixture, problem, text), text


@pytest.mark.parametrize(
    "name", ["spell_backward", "chain_sum", "caesar_cipher", "string_insertion", "needle_haystack"]
)
def test_quotes_around_an_answer_are_taken_off(name):
    mixture, problem, right = first_problem(name)
    for text in (f'"{right}"', f"'{right}'", f"“{right}”"):
        assert paid(mixture, problem, text)


def test_quotes_stay_where_they_mean_something():
    problem = Problem(
        "Answer in the form of a JSON value.",
        "1",
        payload={"answer": "1", "question": "", "metadata": {}},
        task="codeio",
    )
    mixture = EnvironmentMixture({"codeio": TaskSpec()})
    assert paid(mixture, problem, "1")
    assert not paid(mixture, problem, '"1"')
    mixture, problem, right = first_problem("acre")  # "Do not use quotation marks in your answer."
    assert not paid(mixture, problem, f'"{right}"')


AROUND_PARTS = ["`5` or `6`", "```\n5\n```\n```\n6\n```", '"5" or "6"', "**Answer: 5** or 6", "The answer is not 5"]


@pytest.mark.parametrize("text", AROUND_PARTS)
def test_dress_that_is_not_around_the_whole_answer_stays(text):
    entry = {"question": "2 + 3", "answer": "5", "metadata": {}}
    mixture, problem = (
        EnvironmentMixture({"chain_sum": TaskSpec()}),
        Problem("2 + 3", "5", payload=entry, task="chain_sum"),
    )
    assert not paid(mixture, problem, text)
