"""Wherever a run stops, it is asked the same afterwards, though the loader was ahead of every decision."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from rl_lightning.curriculum import Curriculum
from rl_lightning.data import PromptDataModule
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.types import Problem
from tests.environments.test_stream import Words

LEVELS = [{"min_terms": n, "max_terms": n, "max_digits": 2} for n in range(2, 8)]
FOLLOWING = Curriculum(window=2, start=2, rehearsal=0.2, follow_progress=True)
STEPS = 24


def made(workers: int) -> PromptDataModule:
    """A data module as `setup` leaves it, but for the trials of the levels."""
    tasks = {"chain_sum": TaskSpec(), "products": TaskSpec(weight=0.3)}
    data = PromptDataModule(tasks, prompts_per_step=2, num_workers=workers, eval_num_samples=6, curriculum=FOLLOWING)
    data.template = data.shown = Words()
    data.mixture.set_levels({"chain_sum": LEVELS})
    data._prepare(fitting=False)
    return data


def steps(data: PromptDataModule, number: int) -> tuple[list[tuple[Problem, ...]], list[dict]]:
    """The problems of some steps, and the state after each. As Lightning does it: the next batch is there before a step begins."""
    batches = iter(data.train_dataloader())
    asked, states, ready = [], [], next(batches)
    for _ in range(number):
        batch, ready = ready, next(batches)
        right = [(p, 1.0 if (p.level or 0) < 4 else 0.0) for p in batch.problems]
        data.advance(batch.cursor, right)
        asked.append(batch.problems)
        states.append(data.state_dict())
    batches.close()
    data.teardown("fit")
    return asked, states


@pytest.fixture(scope="module")
def uninterrupted():
    return steps(made(workers=0), STEPS)


def test_the_learner_goes_up_and_down(uninterrupted):
    levels = [state["scheduler"]["levels"]["chain_sum"] for state in uninterrupted[1]]
    moves = [after - before for before, after in pairwise(levels)]
    assert {-1, 1} <= set(moves) <= {-1, 0, 1}


def test_workers_change_nothing(uninterrupted):
    assert steps(made(workers=1), STEPS) == uninterrupted


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_a_stop_after_any_step_changes_nothing(uninterrupted, stop):
    asked, states = uninterrupted
    data = made(workers=0)
    data.load_state_dict(states[stop - 1])
    assert steps(data, STEPS - stop) == (asked[stop:], states[stop:])


def test_problems_know_their_level(uninterrupted):
    mixture = made(workers=0).mixture
    for problem in [problem for batch in uninterrupted[0] for problem in batch]:
        if problem.task == "chain_sum":
            assert problem.payload["metadata"]["num_terms"] == problem.level + 2
            assert mixture.verify_all([(problem, problem.payload["answer"])]) == [1.0]
        else:
            assert problem == replace(problem, level=None)
