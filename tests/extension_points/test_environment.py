"""A task of one's own: three questions and a verifier in a few lines, beside one of reasoning-gym's."""

from __future__ import annotations

import json

import pytest

from rl_lightning.callbacks import FixedEval, GroupVariance, RolloutLog, RunDirectory
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.types import UserError
from tests.extension_points.replay import ReplayEngine
from tests.extension_points.three_questions import ThreeQuestions
from tests.extension_points.training import SUMS, data, fit, module


def test_a_step_is_trained_on_three_questions_of_ones_own(tmp_path):
    texts = [f"<answer>{answer}</answer>" for answer in ("paris", "Rome", "Mxyz", "1+1")]
    source = data({"capitals": TaskSpec(environment=ThreeQuestions()), **SUMS}, prompts=8)
    trained = module(engine=ReplayEngine(texts))
    callbacks = [GroupVariance(), RolloutLog(), FixedEval(1), RunDirectory()]
    (record,) = fit(tmp_path, trained, source, callbacks=callbacks)
    problems, scores = record.rollouts.prompts.problems, record.rollouts.scores
    mine = [n for n, problem in enumerate(problems) if problem.task == "capitals"]
    assert 1 <= len(mine) < 8
    for n in mine:
        found = scores[4 * n : 4 * n + 4]
        right = [score.exact for score in found]
        assert right == [float(answer == problems[n].expected) for answer in ("Paris", "Rome", "", "")]
        assert found[2].partial == (0.5 if problems[n].expected == "Madrid" else 0.0)
        assert found[3].failure == "refused_not_a_word"
    result = json.loads((tmp_path / "eval_results" / "eval_step_1.json").read_text())
    assert set(result["tasks"]) == {"capitals", "chain_sum"}
    suite = json.loads((tmp_path / "eval_results" / "suite.json").read_text())
    assert {p["expected"] for p in suite["problems"] if p["task"] == "capitals"} <= {"Paris", "Rome", "Madrid"}
    held_out = {p["question"] for p in suite["problems"]}
    assert held_out.isdisjoint(problem.question for problem in problems)


def test_levels_with_a_setting_that_an_environment_does_not_have_are_one_line():
    with pytest.raises(UserError, match=r"datasets.capitals.levels\[0\].letters: no such setting; allowed: none"):
        data({"capitals": TaskSpec(environment=ThreeQuestions(), levels=[{"letters": 4}])})
