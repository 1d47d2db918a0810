"""Values as a config has them: read again as the same, or refused."""

from __future__ import annotations

import functools
import re
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum, Flag, StrEnum
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from rl_lightning.checkpointing.recorded import Recorded, Unsayable, as_config
from rl_lightning.curriculum import Curriculum
from rl_lightning.environments.verifiers import Number
from rl_lightning.rollout import Sampling


class Text(StrEnum):
    RED = "red"


class Switch(Flag):
    A = 1
    B = 2


class Late:
    def __init__(self, a=1):
        pass

    @property
    def a(self):
        raise RuntimeError("not loaded yet")


class Net(torch.nn.Module):
    def __init__(self, width=2):
        super().__init__()
        self.width, self.layer = width, torch.nn.Linear(width, 1)


@dataclass
class MySampling(Sampling):
    more: int = 0


@dataclass
class Short:
    limit: int = 3

    def __call__(self, completion):
        return float(len(completion) < self.limit)


Pair = namedtuple("Pair", "a b")


@functools.cache
def cached(completion):
    return 1.0


def decorated(function):
    @functools.wraps(function)
    def inner(completion):
        return function(completion)

    return inner


def test_what_would_be_read_as_something_else_cannot_be_written():
    others = (decorated(cached), Short().__call__, Text.RED, Switch.A | Switch.B, Late(), Net(), MySampling(4, 12))
    for value in (*others, re.compile("a"), torch.float32, (each for each in ()), "abc".count, {Text.RED: 1}):
        with pytest.raises(Unsayable):
            as_config(value)


def test_objects_of_a_users_own_classes_are_named():
    here = __name__
    assert as_config(Short(5)) == {"class_path": f"{here}.Short", "init_args": {"limit": 5}}
    assert as_config(Pair(1, 2)) == {"class_path": f"{here}.Pair", "init_args": {"a": 1, "b": 2}}
    assert as_config([cached, np.log, np.bool_(True)]) == [f"{here}.cached", "numpy.log", True]


def test_numbers_of_numpy_are_numbers_and_enums_their_names():
    class Colour(Enum):
        RED = 1

    assert as_config([np.int64(3), np.float64(0.5), Colour.RED, {1: True}]) == [3, 0.5, "RED", {1: True}]
    assert yaml.safe_dump(as_config(np.float64(1e-3))) == "0.001\n...\n"
    loop: list = []
    loop.append(loop)
    for value in (loop, {1, 2}, range(3), torch.ones(2), torch.nn.Linear(1, 1), 1j, {None: 1}):
        with pytest.raises(Unsayable):
            as_config(value)


def test_settings_as_a_config_has_them():
    assert as_config(Sampling(4, 12))["max_new_tokens"] == 12
    assert as_config(Curriculum(low=0.3))["low"] == 0.3
    assert as_config(Number()) == {
        "class_path": "rl_lightning.environments.verifiers.number.Number",
        "init_args": {"tolerance": 0.0, "relative_tolerance": 0.0, "units": []},
    }
    assert as_config({"a": (Path("x"), as_config)}) == {"a": ["x", "rl_lightning.checkpointing.recorded.as_config"]}


def test_arguments_are_recorded_with_their_defaults():
    class Mine(Recorded):
        def __init__(self, a, b=2):
            pass

    assert Mine(1).arguments == {"a": 1, "b": 2}
    with pytest.raises(TypeError, match="unexpected keyword argument 'c'"):
        Mine(c=1)
