"""Hostile answers to questions of one's own, by the real path: sandboxed workers with a time limit."""

from __future__ import annotations

import pytest

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.one_problem import OneProblem
from rl_lightning.environments.verifiers import Choice, ExactText, Items, JSONValue, Mathematics, Number, Pattern
from rl_lightning.scoring import Scorer
from rl_lightning.types import Problem
from tests.environments.gullible_verifier import OwnClass
from tests.hostile_to_verifiers import hostile_to_verifiers

QUESTIONS = {
    "ExactText": (ExactText(ignore_punctuation=True), "New York", "new york."),
    "Number": (Number(tolerance=0.5, units=["$", "km/h", "%"]), "61.5 km/h", "**61.25**"),
    "Choice": (Choice(), "C) Paris", "(c)"),
    "Items": (Items(), '"Paris, France", Rome, (1, 2)', "[rome, (1, 2), 'Paris, France']"),
    "Mathematics": (Mathematics, r"\frac{x}{2}+1", "$1 + 0.5x$"),
    "JSONValue": (JSONValue(), '{"a": [1, true], "b": null}', '{"b": null, "a": [1.0, true]}'),
    "Pattern": (Pattern(r"(a|aa)+b+|\d{2} (apple|pear)+s"), "12 apples", "`13 pears`"),
    "OwnClass": (OwnClass(), "right", "right"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_hostile_answer_runs_or_is_paid_and_a_right_one_is_right_afterwards(name, tmp_path):
    verifier, expected, right = QUESTIONS[name]
    if name == "Mathematics":
        pytest.importorskip("math_verify", reason="needs the extra [math]")
        verifier = verifier()
    marker = tmp_path / "ran"
    problem = Problem("What is it?", expected, task="own")
    answers = hostile_to_verifiers(problem, str(marker))
    assert len(answers) >= 200
    scorer = Scorer(EnvironmentMixture({"own": TaskSpec(environment=OneProblem(problem, verifier))}), seconds=1.0)
    try:
        scores = scorer.score_answers([problem] * len(answers), answers)
        (after,) = scorer.score_answers([problem], [right])
    finally:
        scorer.close()
    assert [answer[:80] for answer, score in zip(answers, scores, strict=True) if score.partial > 0] == []
    assert (after.exact, after.failure) == (1, None)
    assert not marker.exists()
