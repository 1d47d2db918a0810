"""The tasks of `data.datasets` before jsonargparse reads them: `class_path` beside `weight`, and mistakes in one line.

jsonargparse would take `class_path` and `init_args` there for a class in place of TaskSpec, so they are moved under `environment`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import jsonargparse
import yaml

from rl_lightning.cli.task_changes import HELP, PLACE, AddOrTakeOut, changed, tasks_in
from rl_lightning.environments.environment import Environment
from rl_lightning.environments.mixture import TaskSpec
from rl_lightning.environments.questions import QuestionFile, Questions
from rl_lightning.environments.setting_names import refuse_null, refuse_unknown
from rl_lightning.environments.verifier import Verifier
from rl_lightning.types import UserError

_OF_CLASS = ("class_path", "init_args")
_KEY = re.compile(r'^(?:Parser key "([\w.]+)": |([\w.]+): )?')


def read_with(parser: Any) -> None:
    """Make a parser accept a task's `class_path` and changes of single tasks, and name what is wrong with a task, wherever
    `data.datasets` is read from.

    Args:
        parser: of jsonargparse, with that setting.
    """
    action: Any = next(each for each in parser._actions if each.dest == PLACE)
    action._check_type = checking(action._check_type)
    vars(action).pop("_check_type_kwargs", None)  # the arguments of its own check, which jsonargparse keeps
    action.help = f"{action.help} {HELP}."
    change = AddOrTakeOut(action._check_type)
    parser._option_string_actions |= dict.fromkeys(change.option_strings, change)


def checking(check: Callable[..., Any]) -> Callable[..., Any]:
    """How jsonargparse checks the value of `data.datasets`, and reads a file that it names: with `read` before it.

    Args:
        check: its own check; the value, and more by name.
    """

    def checked(value: Any, cfg: Any = None, **others: Any) -> Any:
        if hasattr(value, "key"):  # jsonargparse's NestedArg, of --data.datasets.KEY=…
            value = changed(tasks_in(cfg), value.key, value.val)
        tasks, directory = _loaded(value)
        if not isinstance(tasks, dict):
            return check(value, **others)
        tasks = read(tasks)
        with contextlib.chdir(directory):
            try:
                return check(tasks, **others)
            except (UserError, TypeError, ValueError) as error:
                raise _of_task(check, tasks, others) or error from error

    return checked


def read(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """The tasks as TaskSpec takes them.

    Args:
        tasks: task name to its settings as in a config; what is no plain value has been read before.

    Raises:
        UserError: names a setting that does not exist, is at the wrong place, or null.
    """
    return {name: _task(f"{PLACE}.{name}", spec) for name, spec in tasks.items()}


def _loaded(value: Any) -> tuple[Any, str]:
    """The value, or what a file or YAML that it names has, and the directory that its paths are relative to."""
    if not isinstance(value, str):
        return value, "."
    directory = "."
    if os.path.isfile(value):
        directory = os.path.dirname(os.path.abspath(value))
        with open(value, encoding="utf-8") as file:
            value = file.read()
    try:
        return jsonargparse.get_loader("yaml")(value), directory
    except (yaml.YAMLError, UnicodeDecodeError):  # jsonargparse says what is wrong
        return value, "."


def _of_task(check: Callable[..., Any], tasks: Mapping[str, Any], others: Mapping[str, Any]) -> UserError | None:
    """The error of the first task that is refused when it is alone, with its place."""
    for name, spec in tasks.items():
        try:
            check({name: spec}, **others)
        except UserError as error:
            line = _KEY.sub(lambda found: f".{found[1] or found[2]}: " if found[0] else ": ", str(error))
            return UserError(f"{PLACE}.{name}{line}")
        except (TypeError, ValueError):  # it has its place, and `error` of the parser makes it a line
            return None
    return None


def _task(where: str, spec: Any) -> Any:
    if spec is None or isinstance(spec, (bool, int, float, list)):
        written = "null" if spec is None else repr(spec)
        raise UserError(
            f"{where}: {written} is not allowed; it must be settings by name, such as {{weight: 1}}, or {{}}"
        )
    if not isinstance(spec, dict):
        return spec
    if "class_path" in spec:
        spec = _moved(where, spec)
    _check(where, TaskSpec, spec)
    return spec


def _moved(where: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The settings with class_path and init_args under `environment`."""
    if spec.get("environment") is not None:
        raise UserError(f"{where}: class_path and environment exclude each other; they are two names for the same")
    of = _class_of(Environment, spec["class_path"])
    for each in fields(Questions):
        if each.name in spec and of is not None and issubclass(of, QuestionFile):
            raise UserError(f"{where}.{each.name}: of a QuestionFile of your own it belongs under init_args.questions")
    others = {key: value for key, value in spec.items() if key not in (*_OF_CLASS, "environment")}
    return {"environment": {key: spec[key] for key in _OF_CLASS if key in spec}, **others}


def _check(where: str, of: type, values: Mapping[str, Any]) -> None:
    """Refuse unknown settings and null, also in the settings of classes among them."""
    refuse_unknown(where, of, values)
    refuse_null(where, of, values)
    for name, value in values.items():
        place = f"{where}.{name}"
        if name == "questions" and issubclass(of, QuestionFile) and isinstance(value, dict):
            _check(place, Questions, value)
        elif name in ("verifier", "environment") and issubclass(of, Questions) and isinstance(value, dict):
            base: type = Verifier if name == "verifier" else Environment
            found, given = _class_of(base, value.get("class_path")), value.get("init_args")
            if found is not None and isinstance(given, dict):
                _check(f"{place}.init_args", found, given)


def _class_of(base: type, path: Any) -> type | None:
    """The class that a class_path names; None where there is none, which is refused elsewhere."""
    if not isinstance(path, str):
        return None
    module, _, name = path.rpartition(".")
    if not module:
        return {each.__name__: each for each in _subclasses(base)}.get(name)
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception:  # of the user's own module any; jsonargparse imports it again and says so
        return None
    return found if isinstance(found, type) and issubclass(found, base) else None


def _subclasses(of: type) -> Iterator[type]:
    each: type
    for each in of.__subclasses__():
        yield each
        yield from _subclasses(each)
