"""Keep the arguments that an object was made with, so that a run made from Python can write its settings down."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PLAIN = (str, int, float, bool, type(None))


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
    """A value as a config file has it: dataclasses as settings by name, other objects as `class_path` and `init_args`: the
    attributes that have the names of the constructor's parameters; functions by their path."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): as_config(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_config(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: as_config(getattr(value, each.name)) for each in dataclasses.fields(value) if each.init}
        # One of several classes with the same abstract base, such as a surrogate, is named.
        return _named(value, fields) if any(map(inspect.isabstract, type(value).__mro__)) else fields
    names = list(inspect.signature(type(value)).parameters)
    return _named(value, {name: as_config(getattr(value, name)) for name in names if hasattr(value, name)})


def _named(value: Any, init_args: Mapping[str, Any]) -> dict[str, Any]:
    path = f"{type(value).__module__}.{type(value).__qualname__}"
    return {"class_path": path, **({"init_args": dict(init_args)} if init_args else {})}
