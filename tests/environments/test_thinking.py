"""The working of problems, for worked examples: every step is right, and it ends in the expected answer."""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Iterator

import pytest

from rl_lightning.environments.environment import GenerationFailed
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask
from rl_lightning.types import Problem

STEP = re.compile(r"(-?\d+) ([+*-]|mod) (-?\d+) = (-?\d+)")
COMPUTE = {"+": operator.add, "-": operator.sub, "*": operator.mul, "mod": operator.mod}
TASKS = [
    ("basic_arithmetic", {"min_terms": 2, "max_terms": 5, "operators": ["+", "-", "*"], "allow_parentheses": False}),
    ("chain_sum", {}),
    ("gcd", {}),
    ("leg_counting", {}),
    ("letter_counting", {}),
    ("number_format", {}),
    ("products", {}),
    ("spell_backward", {}),
]


def problems(task: ReasoningGymTask, seeds: int) -> Iterator[Problem]:
    """The task's problems, without those that are left out because upstream's answer is wrong."""
    for seed in range(seeds):
        with contextlib.suppress(GenerationFailed):
            yield task.problem(seed)


@pytest.mark.parametrize(("name", "config"), TASKS, ids=[name for name, _ in TASKS])
def test_every_step_is_right_and_the_last_one_gives_the_answer(name, config):
    task = ReasoningGymTask(name, config)
    steps = 0
    for problem in problems(task, 100):
        thinking = task.thinking(problem)
        if thinking is None:  # a product after a sum
            assert re.search(r"[+-].*\*", problem.question)
            continue
        for left, sign, right, result in STEP.findall(thinking):
            assert COMPUTE[sign](int(left), int(right)) == int(result), thinking
            steps += 1
        assert re.split(r"[ =]", thinking)[-1].replace("-", "") == problem.expected.replace("-", ""), thinking
    assert (steps > 50) == (name in ("basic_arithmetic", "chain_sum", "gcd", "leg_counting", "products"))


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("basic_arithmetic", {"allow_parentheses": True, "min_terms": 6, "max_terms": 6}),
        ("gcd", {"min_numbers": 3, "max_numbers": 3}),
        ("sudoku", {}),
    ],
)
def test_what_has_no_working_says_so(name, config):
    task = ReasoningGymTask(name, config)
    without = [task.thinking(problem) is None for problem in problems(task, 10)]
    assert any(without) if name == "basic_arithmetic" else all(without)
