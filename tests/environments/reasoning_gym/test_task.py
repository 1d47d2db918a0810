from __future__ import annotations

import pickle
import random
import subprocess
import sys
from itertools import count

import numpy as np
import pytest
from reasoning_gym.factory import DATASETS

from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask, config_defaults, task_names
from rl_lightning.types import UserError
from tests.environments.reasoning_gym.right_answers import asked

SLOW = {"futoshiki", "knight_swap", "number_sequence", "zebra_puzzles", "arc_agi"}


def test_there_are_105_tasks():
    assert len(task_names()) == 105


@pytest.mark.parametrize("name", [n for n in task_names() if n not in SLOW])
def test_a_problem_is_a_pure_function_of_its_item_seed(name):
    """Also after other problems, in a fresh instance, and far up in the range of seeds; global RNG states are left alone."""
    first, second = ReasoningGymTask(name, {}), ReasoningGymTask(name, {})
    random.seed(5)
    np.random.seed(5)
    python_state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()
    problem = next(asked(first, count(2**31 + 17)))
    next(asked(second, count(3)))
    again = next(asked(second, count(2**31 + 17)))
    assert problem.question == again.question
    assert problem.payload["answer"] == again.payload["answer"]
    assert random.getstate() == python_state
    assert np.random.get_state()[1].tolist() == numpy_state


def test_different_item_seeds_give_different_problems():
    task = ReasoningGymTask("chain_sum", {"min_digits": 4, "max_digits": 4})
    assert len({task.problem(seed).question for seed in range(200)}) == 200


@pytest.mark.parametrize("name", ["arc_1d", "string_manipulation", "chain_sum"])
def test_tasks_travel_to_worker_processes(name):
    task = pickle.loads(pickle.dumps(ReasoningGymTask(name, {})))
    assert task.problem(7) == ReasoningGymTask(name, {}).problem(7)


@pytest.mark.parametrize("name", ["ransom_note", "isomorphic_strings", "list_functions"])
def test_hash_ordered_tasks_are_the_same_in_every_process(name):
    code = (
        "from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask\n"
        f"print(ReasoningGymTask({name!r}, {{}}).problem(11).question)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": "0"}, capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout != ""


def test_hash_ordered_tasks_are_refused_where_the_hash_seed_is_random(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    with pytest.raises(UserError, match="set PYTHONHASHSEED=0"):
        ReasoningGymTask("ransom_note", {})


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("game_of_24", {}, r"datasets.game_of_24: no such task; .*lists all 105"),
        ("chain_sun", {}, r"did you mean chain_sum"),
        (
            "syllogism",
            {"num_premises": 2},
            r"datasets.syllogism.config.num_premises: no such key; .*allowed: allow_all",
        ),
        ("chain_sum", {"min_term": 2}, r"did you mean min_terms"),
        ("chain_sum", {"seed": 2}, r"belongs to the stream"),
        ("chain_sum", {"min_terms": -1}, r"datasets.chain_sum.config: .*min_terms must be positive"),
        ("chain_sum", {"min_terms": "many"}, r"datasets.chain_sum.config"),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(name, config, message):
    with pytest.raises(UserError, match=message) as error:
        ReasoningGymTask(name, config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("item", "difficulty"),
    [
        ({"metadata": {"difficulty": {"a": (1, 9), "b": (0.1, 0.9), "c": 7}, "a": 4, "b": 0.3}}, {"a": 4, "c": 7}),
        ({"metadata": {"difficulty": None}}, {}),
        ({"metadata": {"difficulty": 1.0}}, {}),
        ({}, {}),
    ],
)
def test_difficulty_is_the_problems_own_values_where_they_are_whole_numbers(monkeypatch, item, difficulty):
    monkeypatch.setattr(DATASETS["chain_sum"][0], "__getitem__", lambda self, index: {"question": "?", **item})
    assert ReasoningGymTask("chain_sum", {}).problem(0).difficulty == difficulty


def test_defaults_hide_what_the_stream_owns():
    assert "min_terms" in config_defaults("chain_sum")
    assert not {"seed", "size"} & set(config_defaults("chain_sum"))
