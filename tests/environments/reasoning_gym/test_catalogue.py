from __future__ import annotations

from rl_lightning.environments.reasoning_gym.catalogue import catalogue, describe
from rl_lightning.environments.reasoning_gym.descriptions import DESCRIPTIONS
from rl_lightning.environments.reasoning_gym.task import task_names


def test_every_task_has_a_line():
    lines = catalogue().splitlines()
    for name in task_names():
        assert sum(line.split()[:1] == [name] and DESCRIPTIONS[name] in line for line in lines) == 1


def test_a_task_is_shown_with_its_settings_and_two_problems():
    text = describe("chain_sum")
    assert "max_digits: 4" in text
    assert text.count("Answer: ") == 2
