"""A clock that does not depend on the machine: every reading is as much later than the one before."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest


def tick(monkeypatch: pytest.MonkeyPatch, *modules: object, seconds: float = 1.0) -> None:
    """Replace `time.perf_counter` in modules that say `import time`; they read one clock."""
    readings = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(readings) * seconds)
    for module in modules:
        monkeypatch.setattr(module, "time", clock)
