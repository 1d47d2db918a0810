"""Runs on every kind of own task: they resume to the last bit, and what is evaluated is never trained on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
from scipy.stats import chisquare

from rl_lightning.curriculum import Curriculum
from rl_lightning.data import PromptDataModule
from rl_lightning.environments import TaskSpec
from rl_lightning.environments.question_hash import question_hash
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask
from rl_lightning.environments.verifiers import Number
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from tests.own_boxes import Boxes
from tests.runs import SUMS, run, same


def rows(numbers):
    return [{"question": f"What is {n} + {n}?", "answer": f"twice {n}\n#### {2 * n:,}"} for n in numbers]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """Every kind of task by its name."""
    path = tmp_path_factory.mktemp("own")
    (path / "doubles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(range(25))))
    pd.DataFrame(rows(range(900, 930))).to_parquet(path / "train.parquet")
    pd.DataFrame(rows(range(925, 935))).to_csv(path / "test.csv", index=False)
    (path / "hub").mkdir()
    for split, numbers in (("train", range(50, 80)), ("test", range(75, 85))):
        pd.DataFrame(rows(numbers)).to_parquet(path / "hub" / f"{split}.parquet")
    gold = {"answer_pattern": "#### (?P<answer>.+)", "verifier": Number()}
    composite = {"datasets": [{"name": "chain_sum", "config": {"max_terms": 2}}, {"name": "spell_backward"}]}
    return {
        "file": TaskSpec(path=str(path / "doubles.jsonl"), **gold),
        "split": TaskSpec(path=str(path / "train.parquet"), eval_path=str(path / "test.csv"), **gold),
        "hub": TaskSpec(path=str(path / "hub"), eval_split="test", **gold),
        "class": TaskSpec(environment=Boxes()),
        "composite": TaskSpec(environment=ReasoningGymTask("composite", composite)),
    }


def chosen(kinds, kind) -> dict[str, TaskSpec]:
    return {**kinds, **SUMS} if kind == "all" else {kind: kinds[kind]}


@pytest.mark.parametrize("kind", ["split", "hub", "class", "composite", "all"])
def test_a_stopped_run_goes_on_to_the_last_bit_and_trains_on_nothing_that_is_evaluated(tmp_path, kinds, kind):
    if kind in ("hub", "all"):
        pytest.importorskip("datasets")
    of = {"tasks": chosen(kinds, kind), "data": {"examples": 1}}
    of |= {"curriculum": Curriculum()} if kind == "class" else {}
    _, _, data = run(tmp_path / "whole", 4, **of)
    run(tmp_path / "stopped", 2, **of)
    run(tmp_path / "stopped", 4, ckpt_path=str(tmp_path / "stopped" / "checkpoint-2" / "trainer.ckpt"), **of)
    same(tmp_path / "stopped", tmp_path / "whole", 4)
    evaluated = {problem.question.strip() for problem in data.eval_problems}
    assert len({question_hash(question) for question in evaluated}) == 5 * len(of["tasks"])
    prompts = set(pd.read_parquet(tmp_path / "whole" / "rollouts").prompt)
    assert len(prompts) == 8
    assert not [question for question in evaluated if any(question in prompt for prompt in prompts)]


def set_up(datasets, **kwargs) -> PromptDataModule:
    data = PromptDataModule(datasets, num_workers=0, system_prompt="", eval_num_samples=5, **kwargs)
    data.trainer = SimpleNamespace(lightning_module=GRPOModule(policy=PolicyConfig("tiny")))
    data.setup("fit")
    return data


def test_a_mixture_of_all_kinds_has_its_shares_and_each_question_of_a_file_once_in_an_epoch(kinds):
    pytest.importorskip("datasets")
    weights = {"file": 3.0, "split": 1.0, "hub": 2.0, "class": 1.0, "composite": 1.0, "chain_sum": 2.0}
    data = set_up({name: replace(spec, weight=weights[name]) for name, spec in {**kinds, **SUMS}.items()}, examples=2)
    drawn = [data.stream.candidate(slot) for slot in range(10_000)]
    counts = Counter(task for task, *_ in drawn)
    total = sum(weights.values())
    assert chisquare([counts[task] for task in weights], [10_000 * w / total for w in weights.values()]).pvalue > 1e-3
    shown = {question for turns in data.examples.values() for question, _ in turns}
    for task, train in (("file", 25 - 5 - 2), ("split", 25 - 2), ("hub", 25 - 2)):
        items = [item for name, item, *_ in drawn if name == task]
        assert len(set(items)) == train
        for epoch in range(len(items) // train):
            assert len(set(items[epoch * train : (epoch + 1) * train])) == train
        asked = {data.mixture.tasks[task].problem(item).question for item in items}
        assert not asked & (shown | {p.question for p in data.eval_problems})


def test_the_evaluation_has_only_questions_of_its_own_split(kinds):
    data = set_up({"split": kinds["split"]})
    assert all(925 <= int(p.question.split()[2]) < 935 for p in data.eval_problems)
    assert set_up({"split": kinds["split"]}, seed=4).eval_problems == data.eval_problems


def test_a_question_of_one_tasks_evaluation_is_trained_on_by_no_other_task(kinds):
    both = set_up({"a": kinds["file"], "b": kinds["file"]})
    evaluated = {p.question for p in both.eval_problems}
    assert len(evaluated) > 5, "the two tasks draw their evaluations each by itself"
    for task in "ab":
        trained = {both.mixture.tasks[task].problem(int(n)).question for n in both.stream.orders[task].items}
        assert len(trained) == 25 - len(evaluated)
        assert not trained & evaluated
