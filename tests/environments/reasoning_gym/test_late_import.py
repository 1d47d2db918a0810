"""cellpylib, and with it what draws, is imported by the tasks that use it; in a worker before that gives up its rights."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.problem_workers import ProblemWorkers

PROGRAM = """
import sys
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask
task = ReasoningGymTask(sys.argv[1], {})
task.problem(0)
print("matplotlib" in sys.modules)
task.start()
print("matplotlib" in sys.modules)
"""


@pytest.mark.parametrize(("task", "loaded"), [("chain_sum", "False False"), ("game_of_life", "True True")])
def test_what_draws_is_imported_by_the_tasks_that_use_it(task, loaded):
    done = subprocess.run([sys.executable, "-c", PROGRAM, task], capture_output=True, text=True, check=True)
    assert " ".join(done.stdout.split()) == loaded


def test_it_works_in_a_worker():
    workers = ProblemWorkers(EnvironmentMixture({"game_of_life": TaskSpec()}), workers=1, seconds=60)
    try:
        assert "Game of Life" in workers("game_of_life", 7, 0).question
    finally:
        workers._pool.close()
