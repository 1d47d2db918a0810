"""Tasks with a limited number of problems: no repetition in an epoch, nothing held out is trained on, the same order again."""

from __future__ import annotations

import json
import random
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from rl_lightning.data import PromptDataModule
from rl_lightning.environments.finite import EpochOrder, Ordinals, Permutation
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.environments.verifiers import Number
from rl_lightning.module import GRPOModule
from rl_lightning.policy import PolicyConfig
from rl_lightning.types import UserError
from tests.runs import run, same

SUM = TaskSpec(config={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})


@given(st.lists(st.integers(0, 999), min_size=1, max_size=40, unique=True), st.integers(0, 5), st.data())
@settings(max_examples=50, deadline=None)
def test_an_epoch_has_every_problem_once_in_whatever_order_slots_are_asked_for(items, epoch, data):
    order = EpochOrder(items, "sums:0")
    slots = range(epoch * len(items), (epoch + 1) * len(items))
    found = {k: order.item(k) for k in data.draw(st.permutations(slots))}
    assert sorted(found.values()) == sorted(items)
    again = EpochOrder(items, "sums:0")
    again.item(12345)
    assert [again.item(k) for k in slots] == [found[k] for k in slots]


def test_epochs_seeds_and_extra_prompts_have_other_orders():
    order, other = EpochOrder(range(50), "sums:0"), EpochOrder(range(50), "sums:1")
    epochs = [[order.item(k) for k in range(first, first + 50)] for first in (0, 50)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != [other.item(k) for k in range(50)]
    assert epochs[0] != [order.item(k, "extra") for k in range(50)]


def test_ordinals_count_the_earlier_slots_of_the_same_task():
    tasks = random.Random(0).choices("abc", k=200)
    ordinals = Ordinals(lambda slot: tasks[slot])
    for slot in (199, 0, 57):
        assert ordinals[slot] == tasks[:slot].count(tasks[slot])


def questions(path, number: int) -> TaskSpec:
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TaskSpec(path=str(path), verifier=Number())


def set_up(datasets, **kwargs) -> PromptDataModule:
    data = PromptDataModule(datasets, **{"num_workers": 0, "system_prompt": "", "eval_num_samples": 6} | kwargs)
    data.trainer = SimpleNamespace(lightning_module=GRPOModule(policy=PolicyConfig("tiny")))
    data.setup("fit")
    return data


def trained(data, steps: int) -> list[str]:
    batches = iter(data.train_dataloader())
    return [p.question for _ in range(steps) for p in next(batches).problems if p.task == "doubles"]


@pytest.mark.parametrize("mixed", [False, True])
def test_evaluation_examples_and_epochs_share_out_the_problems(tmp_path, mixed):
    datasets = {"doubles": questions(tmp_path / "q.jsonl", 30)} | ({"chain_sum": SUM} if mixed else {})
    data = set_up(datasets, prompts_per_step=4, examples=2)
    evaluated = {p.question for p in data.eval_problems if p.task == "doubles"}
    shown = {question for question, _ in data.examples["doubles"]}
    seen = trained(data, 30)
    assert (len(evaluated), len(shown)) == (6, 2)
    assert len(seen) >= 44
    epochs = [seen[:22], seen[22:44]]
    for epoch in epochs:
        assert len(set(epoch)) == 22
        assert not set(epoch) & (evaluated | shown)
    assert epochs[0] != epochs[1]
    assert trained(set_up(datasets, prompts_per_step=4, examples=2), 30) == seen
    assert trained(set_up(datasets, prompts_per_step=4, examples=2, seed=1), 30) != seen
    resumed = set_up(datasets, prompts_per_step=4, examples=2)
    resumed.cursor = 4 * 7
    assert trained(resumed, 23) == seen[len(seen) - len(trained(resumed, 23)) :]


def test_another_seed_of_the_stream_has_the_same_evaluation(tmp_path):
    datasets = {"doubles": questions(tmp_path / "q.jsonl", 30)}
    assert set_up(datasets).eval_problems == set_up(datasets, seed=5).eval_problems
    assert set_up(datasets).eval_problems != set_up(datasets, eval_seed=5).eval_problems


def test_fewer_problems_than_a_step_are_said_and_repeat(tmp_path, caplog):
    data = set_up({"doubles": questions(tmp_path / "q.jsonl", 9)}, prompts_per_step=8)
    assert (
        "datasets.doubles: only 3 problems to train on, of which a step asks 8: they repeat within a step"
        in caplog.text
    )
    assert len(set(trained(data, 2))) == 3


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(UserError, match="nothing left to train on: of 6 problems 6 are held out"):
        set_up({"doubles": questions(tmp_path / "q.jsonl", 6)})
    with pytest.raises(UserError, match="0 are held out|6 are held out .* and 24 are longer than max_prompt_tokens"):
        set_up({"doubles": questions(tmp_path / "q.jsonl", 30)}, max_prompt_tokens=3)


@given(st.integers(1, 300), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_a_permutation_has_every_number_once_in_an_order_that_its_key_decides(size, key):
    order = Permutation(size, f"a{key}")
    assert sorted(order) == list(range(size))
    assert list(order) == list(Permutation(size, f"a{key}"))
    assert size < 20 or list(order) != list(Permutation(size, "b"))
    assert order[-1] == order[size - 1]
    for nowhere in (size, -size - 1):
        with pytest.raises(IndexError):
            order[nowhere]


def test_all_orders_of_few_numbers_are_equally_likely():
    counts = Counter(tuple(Permutation(4, str(key))) for key in range(4800))
    assert len(counts) == 24
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_a_run_on_a_file_resumes_to_the_last_bit_and_refuses_a_changed_file(tmp_path):
    tasks = {"doubles": questions(tmp_path / "q.jsonl", 12)}
    run(tmp_path / "whole", 4, tasks=tasks)
    run(tmp_path / "stopped", 2, tasks=tasks)
    checkpoint = str(tmp_path / "stopped" / "checkpoint-2" / "trainer.ckpt")
    run(tmp_path / "stopped", 4, ckpt_path=checkpoint, tasks=tasks)
    same(tmp_path / "stopped", tmp_path / "whole", 4)
    changed = {"doubles": questions(tmp_path / "q.jsonl", 13)}
    with pytest.raises(UserError, match="sha256"):
        run(tmp_path / "other", 6, ckpt_path=checkpoint, tasks=changed)
