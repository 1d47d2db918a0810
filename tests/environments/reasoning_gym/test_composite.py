"""reasoning-gym's composite, and datasets that a module of one's own registers."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from random import Random

import pytest
from reasoning_gym.factory import DATASETS, ProceduralDataset, register_dataset

from rl_lightning.environments.mixture import EnvironmentMixture, TaskSpec
from rl_lightning.environments.problem_workers import ProblemWorkers
from rl_lightning.environments.reasoning_gym.task import ReasoningGymTask, task_names
from rl_lightning.types import UserError

PARTS = [
    {"name": "chain_sum", "weight": 3.0, "config": {"min_terms": 2, "max_terms": 2}},
    {"name": "spell_backward"},
]


@dataclass
class DoubleConfig:
    """Settings of the double of a number."""

    highest: int = 99
    seed: int | None = None
    size: int = 10

    def validate(self):
        assert self.highest > 1, "highest must be above 1"


class Double(ProceduralDataset):
    """Double a number."""

    def __init__(self, config):
        super().__init__(config=config, seed=config.seed, size=config.size)

    def __getitem__(self, idx):
        number = Random(self.seed + idx).randrange(self.config.highest)
        return {"question": f"What is twice {number}?", "answer": str(2 * number), "metadata": {"number": number}}


class DoubleWithoutMetadata(Double):
    """Double a number, and say no more."""

    def __getitem__(self, idx):
        return {key: value for key, value in super().__getitem__(idx).items() if key != "metadata"}


if "double" not in DATASETS:
    register_dataset("double", Double, DoubleConfig)
    register_dataset("double_without_metadata", DoubleWithoutMetadata, DoubleConfig)


@pytest.fixture
def composite():
    return ReasoningGymTask("composite", {"datasets": PARTS})


def test_a_composite_gives_problems_of_its_parts_by_weight_and_verifies_them(composite):
    problems = [composite.problem(seed) for seed in range(400)]
    assert len({p.question for p in problems}) > 380
    sources = [p.payload["metadata"]["source_dataset"] for p in problems]
    assert 270 <= sources.count("chain_sum") <= 330
    assert set(sources) == {"chain_sum", "spell_backward"}
    assert all(composite.verify(p, p.expected) == 1 for p in problems)
    assert composite.problem(7) == composite.problem(7) == pickle.loads(pickle.dumps(composite)).problem(7)


def test_a_composite_has_the_answer_checks_and_the_working_of_its_parts(composite):
    problem = next(
        p for p in map(composite.problem, range(50)) if p.payload["metadata"]["source_dataset"] == "chain_sum"
    )
    alone = ReasoningGymTask("chain_sum", {})
    for answer in ("5; 6", "about 5", "5"):
        assert composite.refuse(problem, answer) == alone.refuse(problem, answer)
    assert composite.thinking(problem) == alone.thinking(problem) is not None


def test_a_module_of_ones_own_registers_a_dataset_which_workers_import_too():
    own = ReasoningGymTask("double", {"highest": 20}, module=__name__)
    assert own.describe() == "double: Double a number."
    mixture = EnvironmentMixture({"mine": TaskSpec(environment=own), "chain_sum": TaskSpec()})
    workers = ProblemWorkers(mixture, 1, 60)
    try:
        problem = workers("mine", 5, 0)
        assert problem == mixture.problem("mine", 5, 0)
        assert workers.verify_all([(problem, problem.expected), (problem, "no")]) == [1.0, 0.0]
    finally:
        workers.close()
    assert "double" not in task_names()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("double", {}, "no_such_module"), "module: 'no_such_module' cannot be imported: ModuleNotFoundError"),
        (("treble", {}, __name__), "datasets.treble: no such task"),
        (("double", {"higest": 3}, __name__), "datasets.double.config.higest: no such key; did you mean highest?"),
        (("double", {"highest": 1}, __name__), "highest must be above 1"),
        (("composite", {}), "Must specify at least one dataset"),
        (("composite", {"datasets": [{"name": "chain_sun"}]}), "no such task; did you mean chain_sum"),
        (("composite", {"datasets": [{"name": "chain_sum", "wieght": 1}]}), "wieght"),
        (("composite", {"datasets": [{"name": "chain_sum", "config": {"max": 1}}]}), "max"),
        (("composite", {"datasets": None}), "datasets.composite.config.datasets: None is not allowed"),
        (("composite", {"datasets": 5}), "datasets.composite.config.datasets: 5 is not allowed"),
        (("composite", {"datasets": ["gcd"]}), "datasets[0]: 'gcd' is not allowed; it must be a task by its name"),
        (("composite", {"datasets": [{"name": None}]}), "datasets[0]: {'name': None} is not allowed"),
        (("composite", {"datasets": [{"name": "gcd", "weight": 0}]}), "datasets[0].weight: 0 is not allowed"),
        (("composite", {"datasets": [{"name": "gcd", "config": None}]}), "datasets[0].config: None is not allowed"),
        (
            ("composite", {"datasets": [{"name": "gcd"}, {"name": "gcd", "config": {"seed": 1}}]}),
            "datasets.composite.config.datasets[1].config.seed: belongs to the stream",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, said):
    with pytest.raises(UserError) as error:
        ReasoningGymTask(*arguments)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_registered_dataset_need_not_say_anything_about_its_items():
    own = ReasoningGymTask("double_without_metadata", {}, module=__name__)
    problem = own.problem(3)
    assert own.thinking(problem) is None
    assert own.refuse(problem, problem.expected) is None
    assert own.verify(problem, problem.expected) == 1
