"""Worked examples in prompts: which ones there are, and that none is trained on or evaluated."""

from __future__ import annotations

import pytest

from rl_lightning.environments.environment import Environment
from rl_lightning.environments.examples import shown_hashes, worked_examples
from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.prompts import PromptSettings, WorkedExample
from rl_lightning.environments.question_hash import question_hash
from rl_lightning.environments.stream import eval_problems, held_out_hashes
from rl_lightning.types import Problem, UserError

SUM = TaskSpec(config={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
OWN = WorkedExample("What is 20 + 2?", "22", "20 and 2 are 22")


class Guesses(Environment):
    """Few questions, of which every second one has an answer that its own verifier does not accept."""

    def problem(self, seed):
        return Problem(f"Guess {seed % 6}.", expected=str(seed % 6))

    def verify(self, problem, answer):
        return float(int(answer) % 2 == 0)


class Silent(Guesses):
    """Nobody knows the answers."""

    def problem(self, seed):
        return Problem(f"Guess {seed}.")


def examples(datasets, held_out=frozenset(), seed=0, **settings):
    return worked_examples(EnvironmentMixture(datasets), PromptSettings(**settings), seed, held_out)


def test_they_are_solved_in_the_answer_format_and_depend_on_the_seed_alone():
    found = examples({"chain_sum": SUM}, examples=3)
    for question, text in found["chain_sum"]:
        left, sign, right = question.split()[-4:-1]
        value = eval(f"{left}{sign}{right}")
        assert text == f"<think>{left} {sign} {right} = {value}</think> <answer>{value}</answer>"
    assert found == examples({"chain_sum": SUM}, examples=3)
    assert found != examples({"chain_sum": SUM}, examples=3, seed=1)
    assert examples({"chain_sum": SUM}, examples=1, answer_format="boxed")["chain_sum"][0][1].endswith("}")
    assert examples({"chain_sum": SUM}) == {}


def test_ones_own_come_first():
    found = examples({"chain_sum": SUM}, examples=2, own_examples={"chain_sum": [OWN]})["chain_sum"]
    assert found[0] == ("What is 20 + 2?", "<think>20 and 2 are 22</think> <answer>22</answer>")
    assert len(found) == 2
    assert len(examples({"chain_sum": SUM}, own_examples={"chain_sum": [OWN, OWN]})["chain_sum"]) == 2


def test_questions_of_the_evaluation_are_not_shown():
    """The one-digit sums are few, so some of the drawn ones are held out."""
    mixture = EnvironmentMixture({"chain_sum": SUM})
    held_out = held_out_hashes(eval_problems(mixture, 0, 60))
    free = examples({"chain_sum": SUM}, examples=20)
    kept = examples({"chain_sum": SUM}, held_out, examples=20)
    assert shown_hashes(free) & held_out
    assert not shown_hashes(kept) & held_out
    assert len(shown_hashes(kept)) == 20
    shown = kept["chain_sum"][0][0]
    with pytest.raises(UserError, match="is a question of the evaluation; show another"):
        examples(
            {"chain_sum": SUM},
            frozenset({question_hash(shown)}),
            own_examples={"chain_sum": [WorkedExample(shown, "1")]},
        )


def test_answers_that_the_verifier_does_not_accept_are_not_shown():
    found = examples({"mine": TaskSpec(environment=Guesses())}, examples=3)["mine"]
    assert sorted(question for question, _ in found) == ["Guess 0.", "Guess 2.", "Guess 4."]


@pytest.mark.parametrize(
    ("environment", "settings", "message"),
    [
        (Guesses(), {"examples": 4}, "data.examples: mine has only 3 of 4 problems whose answer is known and right"),
        (Silent(), {"examples": 1}, "data.examples: mine has only 0 of 1 .* give your own in data.own_examples.mine"),
        (Silent(), {"own_examples": {"other": [OWN]}}, "data.own_examples.other: not a task of data.datasets"),
        (Guesses(), {"examples": 1, "answer_format": "(?P<answer>x)"}, "data.answer_format: nobody can know"),
    ],
)
def test_what_cannot_be_shown_is_one_line(environment, settings, message):
    with pytest.raises(UserError, match=message) as error:
        examples({"mine": TaskSpec(environment=environment)}, **settings)
    assert "\n" not in str(error.value)


def test_a_negative_number_is_refused():
    with pytest.raises(UserError, match="data.examples: -1 is not allowed"):
        PromptSettings(examples=-1)
