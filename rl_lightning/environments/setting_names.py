"""Mistakes in the names of a class's settings, and settings that are null and must not be."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_type_hints

from rl_lightning.types import UserError


def refuse_unknown(where: str, of: type, given: Iterable[str]) -> None:
    """Raise an error for settings that a class does not have.

    Args:
        where: the place of its settings in a config, such as "data.datasets.words".
        of: the class.
        given: names of settings.

    Raises:
        UserError: names the first unknown setting, and those that there are.
    """
    parameters = _parameters(of)
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    for name in given:
        if name not in parameters:
            near = difflib.get_close_matches(str(name), parameters, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UserError(f"{where}.{name}: no such setting; {hint}there are: {', '.join(parameters) or 'none'}")


def refuse_null(where: str, of: type, values: Mapping[str, Any]) -> None:
    """Raise an error for settings that are null where the class says that they are something else.

    Args:
        where: the place of its settings in a config.
        of: the class.
        values: its settings.

    Raises:
        UserError: names the first such setting.
    """
    hints = _hints(of)
    for name, parameter in _parameters(of).items():
        if values.get(name, ...) is None and parameter.default is not None and _is_never_null(hints.get(name, Any)):
            default = " for its default" if parameter.default is not parameter.empty else ""
            raise UserError(f"{where}.{name}: null is not allowed; leave it out{default}")


def _parameters(of: type) -> Mapping[str, inspect.Parameter]:
    return {
        name: each for name, each in inspect.signature(of).parameters.items() if each.kind is not each.VAR_POSITIONAL
    }


def _hints(of: type) -> Mapping[str, Any]:
    try:
        return get_type_hints(of if dataclasses.is_dataclass(of) else of.__init__)  # type: ignore[misc]
    except (NameError, TypeError):  # of the user's own class, imported for type checkers alone; then nothing is known
        return {}


def _is_never_null(hint: Any) -> bool:
    return hint not in (Any, object, type(None)) and not {None, type(None)} & set(get_args(hint))
