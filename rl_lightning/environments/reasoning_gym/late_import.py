"""Import a package when it is used: reasoning-gym imports cellpylib, and that pyplot, for two tasks out of 105."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

LATE = "cellpylib"

USERS = frozenset({"game_of_life", "game_of_life_halting", "composite"})
"""Tasks that use it, or may."""


def import_when_used() -> None:
    """Put a module in its place that imports it when something in it is asked for. Only before reasoning-gym is imported.

    (importlib's LazyLoader imports a module at the next `import` of it already.)
    """
    if LATE in sys.modules or (spec := find_spec(LATE)) is None:
        return
    stand_in = ModuleType(LATE)
    stand_in.__spec__ = spec
    stand_in.__getattr__ = _of_the_package  # type: ignore[method-assign]
    sys.modules[LATE] = stand_in


def import_now() -> None:
    """Import it, in a process that soon may not write what pyplot caches."""
    if "__getattr__" in vars(sys.modules[LATE]):
        del sys.modules[LATE]
        import_module(LATE)


def _of_the_package(name: str) -> Any:
    if name.startswith("__"):  # asked of every module, by inspect for one
        raise AttributeError(name)
    import_now()
    return getattr(sys.modules[LATE], name)
