"""Changes of single tasks on the command line: `--data.datasets.TASK.KEY=VALUE`, `--data.datasets+=TASK`, `--data.datasets-=TASK`.

Each changes what the words before it have made, so a later `--config` replaces it, and `config.yaml` has the result.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

import jsonargparse

from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.environments.reasoning_gym.task import config_defaults, task_names
from rl_lightning.types import UserError

PLACE = "data.datasets"
HELP = "--data.datasets.TASK.KEY=VALUE changes one value of a task, +=TASK or +={TASK: {…}} adds a task, -=TASK takes one out"


class AddOrTakeOut(argparse.Action):
    """`--data.datasets+=` and `--data.datasets-=`.

    Args:
        check: how jsonargparse checks a value of data.datasets.
    """

    def __init__(self, check: Callable[..., Any]) -> None:
        super().__init__([f"--{PLACE}+", f"--{PLACE}-"], PLACE, metavar="TASK")
        self._check = check

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        change = added if str(option_string).endswith("+") else taken_out
        tasks = change(tasks_in(namespace), _read(values))
        namespace.update(self._check(tasks), PLACE)


def added(tasks: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """The tasks and new ones.

    Args:
        tasks: task name to its settings, plain values.
        value: the name of a task, several, or settings by name.

    Raises:
        UserError: one is there already, or the value is none of these.
    """
    where = f"--{PLACE}+={value}"
    new = value if isinstance(value, dict) else {name: {} for name in _names(value, where)}
    for name in new:
        if name in tasks:
            raise UserError(
                f"{where}: {name} is there already; change it by --{PLACE}.{name}.KEY=VALUE, such as --{PLACE}.{name}.weight=2"
            )
    return {**tasks, **new}


def taken_out(tasks: Mapping[str, Any], value: Any) -> dict[str, Any]:
    """The tasks without some.

    Args:
        tasks: task name to its settings.
        value: the name of a task, or several.

    Raises:
        UserError: there is no such task, or none is left.
    """
    where = f"--{PLACE}-={value}"
    names = _names(value, where)
    for name in names:
        if name not in tasks:
            raise UserError(f"{where}: {_no_such(name, tasks)}")
    left = {name: spec for name, spec in tasks.items() if name not in names}
    if not left:
        raise UserError(f"{where}: no task is left; add one by --{PLACE}+=TASK before")
    return left


def changed(tasks: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The tasks with one value changed, or one task's settings given anew.

    Args:
        tasks: task name to its settings, plain values.
        key: TASK.KEY, whose KEY may have further parts; or TASK.
        value: the new value, as text or read.

    Raises:
        UserError: there is no such task, or no such key.
    """
    name = max((each for each in tasks if key == each or key.startswith(f"{each}.")), key=len, default=None)
    if name is None:
        raise UserError(f"--{PLACE}.{key}: {_no_such(key.partition('.')[0], tasks)}")
    if key == name:
        return {**tasks, name: _read(value)}
    path = key[len(name) + 1 :].split(".")
    if tasks[name].get("environment") is not None and path[0] in ("class_path", "init_args"):
        path = ["environment", *path]
    _refuse_key_of_config(name, path)
    return {**tasks, name: _with(tasks[name], path, _read(value), f"--{PLACE}.{name}")}


def tasks_in(config: Any) -> dict[str, Any]:
    """The tasks that jsonargparse has read so far, with their settings as plain values."""
    tasks = _plain(config.get(PLACE) or {})
    # It takes TaskSpec for one of several classes.
    return {name: spec.get("init_args", spec) for name, spec in tasks.items()}


def _plain(value: Any) -> Any:
    """The value as dicts, without the paths that jsonargparse notes in it."""
    if isinstance(value, jsonargparse.Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if not str(key).startswith("__")}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _with(settings: Mapping[str, Any], path: list[str], value: Any, where: str) -> dict[str, Any]:
    first, *rest = path
    if not rest:
        return {**settings, first: value}
    below = settings.get(first)
    if below is None:
        below = {}
    if isinstance(below, str) and rest[0] == "init_args":  # a class without settings so far
        below = {"class_path": below}
    if not isinstance(below, dict):
        raise UserError(
            f"{where}.{first}: is {below!r}, with nothing below it; give it as a whole, by --{PLACE}.…=VALUE"
        )
    return {**settings, first: _with(below, rest, value, f"{where}.{first}")}


def _refuse_key_of_config(name: str, path: list[str]) -> None:
    """Refuse reasoning-gym's own key where `config` was left out."""
    own = {each.name for each in fields(TaskSpec)}
    if path[0] not in own and name in task_names() and path[0] in config_defaults(name):
        raise UserError(
            f"--{PLACE}.{name}.{path[0]}: no such setting; did you mean --{PLACE}.{name}.config.{'.'.join(path)}?"
        )


def _names(value: Any, where: str) -> list[str]:
    names = value if isinstance(value, list) else [value]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            f"{where}: is not the name of a task; give one, such as chain_sum, or several, [chain_sum, gcd]"
        )
    return names


def _no_such(name: str, tasks: Iterable[str]) -> str:
    tasks = list(tasks)
    if not tasks:
        return "no tasks are given before it; put it after --config"
    near = difflib.get_close_matches(name, tasks, n=1)
    hint = f"did you mean {near[0]}? " if near else f"--{PLACE}+={name} adds a task; "
    return f"no task {name!r} is in the run; {hint}there are {', '.join(tasks)}"


def _read(value: Any) -> Any:
    return jsonargparse.get_loader("yaml")(value) if isinstance(value, str) and value.strip() else value
