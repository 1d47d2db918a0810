"""Keep the arguments that an object was made with, so that a run made from Python can write its settings down."""

from __future__ import annotations

import dataclasses
import inspect
import numbers
import sys
from collections.abc import Mapping
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np


class Unsayable(Exception):
    """A value that no config file can have; the message is one line."""


class Recorded:
    """A class whose objects have `arguments`: those of the constructor by name, defaults included."""

    arguments: Mapping[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(made, *args, **kwargs)
        except TypeError:  # which the constructor raises with its own words
            return made
        bound.apply_defaults()
        object.__setattr__(made, "arguments", dict(list(bound.arguments.items())[1:]))
        return made


def as_config(value: Any) -> Any:
    """A value as a config file has it: numbers and text as they are, dataclasses as settings by name, other objects as `class_path`
    and `init_args`, which are the attributes that have the names of the constructor's parameters; functions by their path.

    Raises:
        Unsayable: the value, or one inside it, cannot be written so that it is read again as the same.
    """
    try:
        return _as_config(value)
    except RecursionError:
        raise Unsayable(f"a {type(value).__name__} that contains itself cannot be written") from None


def _as_config(value: Any) -> Any:
    if value is None or isinstance(value, (bool, np.bool_, str, Path, Enum, numbers.Number)):
        return _plain(value)
    if isinstance(value, Mapping):
        return {_key(key): _as_config(item) for key, item in value.items()}
    if type(value) in (list, tuple):  # a named tuple is an object
        return [_as_config(item) for item in value]
    if callable(value) and isinstance(getattr(value, "__qualname__", None), str):
        return _path(value)
    if dataclasses.is_dataclass(value):
        return _dataclass(value)
    return _named(value, {name: _as_config(item) for name, item in _arguments(value).items()})


def _dataclass(value: Any) -> dict[str, Any]:
    """Settings of this package by name: their place says their class. One of several with an abstract base, such as a surrogate, is
    named, and so is a user's own."""
    kind = type(value)
    fields = {each.name: _as_config(getattr(value, each.name)) for each in dataclasses.fields(value) if each.init}
    ours = next((each for each in inspect.getmro(kind) if each.__module__.startswith("rl_lightning.")), None)
    if ours is None or any(inspect.isabstract(each) for each in inspect.getmro(kind)):
        return _named(value, fields)
    if ours is not kind:
        raise Unsayable(f"{kind.__qualname__} is not {ours.__qualname__}, in whose place it stands")
    return fields


def _plain(value: Any) -> Any:
    """A plain value as YAML writes it: numpy's numbers, enums and paths too."""
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, Enum):
        if isinstance(value, (str, numbers.Number)) or value.name not in type(value).__members__:
            raise Unsayable(f"{value!r} cannot be written: by name or by value, nobody could tell")
        return value.name
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, (str, Path)):
        return str(value)
    raise Unsayable(f"a {type(value).__name__} cannot be written")


def _key(key: Any) -> Any:
    if not isinstance(key, (str, numbers.Integral)):
        raise Unsayable(f"a {type(key).__name__} cannot be written as a name")
    return _plain(key)


def _arguments(value: Any) -> dict[str, Any]:
    """The arguments of an object's constructor, read from the attributes of the same names."""
    kind = type(value)
    if not (hasattr(value, "__dict__") or hasattr(kind, "__slots__")):  # a type of Python's or of a library's in C
        raise Unsayable(f"a {kind.__name__} cannot be written")
    if hasattr(kind, "state_dict"):
        raise Unsayable(f"the state of a {kind.__qualname__}, such as weights, cannot be written")
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:  # of many builtin types
        raise Unsayable(f"a {kind.__name__} cannot be written") from None
    found = {}
    for each in parameters:
        try:
            if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
                raise AttributeError
            found[each.name] = getattr(value, each.name)
        except Exception as error:  # a property of the user's may raise anything
            said = f"{kind.__qualname__} keeps its argument {each.name} in no attribute of that name"
            raise Unsayable(said) from error
    return found


def _named(value: Any, init_args: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_path": _path(type(value)), **({"init_args": dict(init_args)} if init_args else {})}


def _path(of: Any) -> str:
    """The path by which a function or class is imported."""
    path = f"{of.__module__}.{of.__qualname__}"
    try:
        found = attrgetter(of.__qualname__)(sys.modules.get(of.__module__))
    except AttributeError:
        found = None
    if of.__module__ == "__main__" or found != of:  # such as a lambda, a local class, or a method of one object
        raise Unsayable(f"{path} cannot be imported by others; move it to the top of a module of its own")
    return path
