"""What a run leaves, and what can be read off it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from laboratory.courses import Course, Run, runs
from rl_lightning.types import UserError

_SHARED = ("suite", "seconds", "every", "threads")
"""Settings that all runs of a table must have alike."""


@dataclass(frozen=True)
class Result:
    """One run's file.

    Attributes:
        seed: the run's.
        settings: the run's.
        evaluations: see `laboratory.run.Referee`.
        machine: what it ran on.
    """

    seed: int
    settings: dict[str, Any]
    evaluations: list[dict[str, Any]]
    machine: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> Result:
        """The file's.

        Raises:
            UserError: it is no result.
        """
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            return cls(found["settings"]["model"]["seed"], *(found[k] for k in ("settings", "evaluations", "machine")))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: not a result of the laboratory ({error}); move it away") from error

    def accuracy(self, axis: str, at: float) -> float:
        """Held-out accuracy when so much of `axis`, seconds or sampled, was spent: a straight line between evaluations."""
        return float(np.interp(at, self.column(axis), self.column("accuracy")))

    def mean_accuracy(self, axis: str, until: float) -> float:
        """Its mean from the start until so much was spent: the earlier a run learns, the more."""
        places = self.column(axis)
        grid = np.append(places[places < until], until)
        return float(np.trapezoid(np.interp(grid, places, self.column("accuracy")), grid) / until)

    def column(self, name: str) -> Any:
        """A figure of all evaluations, as an array."""
        return np.array([evaluation[name] for evaluation in self.evaluations], dtype=float)

    @property
    def last(self) -> dict[str, Any]:
        """The evaluation at the end."""
        return self.evaluations[-1]


Results = Mapping[str, Sequence[Result]]
"""Variant to its runs, the reference first."""


def is_done(run: Run, folder: Path) -> bool:
    """Whether its result is there.

    Raises:
        UserError: there is one of other settings.
    """
    file = run.file(folder)
    if not file.exists():
        return False
    other = list(_differences(Result.read(file).settings, run.settings))
    if other:
        raise UserError(
            f"{file}: a result of other settings ({'; '.join(other[:3])}); move it away, or choose another --results"
        )
    return True


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            inner = f"{name}.{key}" if name else key
            yield from _differences(before.get(key, "not set"), now.get(key, "not set"), inner)
    elif before != now:
        yield f"{name} was {before} and is {now}"


def results_of(course: Course, folder: Path) -> dict[str, list[Result]]:
    """All results of a course that are at hand, by variant, in the course's order; a variant without any is left out.

    Raises:
        UserError: they were not asked the same, or had not the same time, or are of settings that the course no longer has.
    """
    found: dict[str, list[Result]] = {}
    for name in course.variants:
        files = (folder / course.name).glob(f"{name}_seed_*.json")
        mine = [Result.read(file) for file in files if file.stem.removeprefix(f"{name}_seed_").isdigit()]
        if mine:
            found[name] = sorted(mine, key=lambda result: result.seed)
    together = [result for mine in found.values() for result in mine]
    for result in together:
        first, this = ({key: r.settings[key] for key in _SHARED} for r in (together[0], result))
        if other := list(_differences(first, this)):
            raise UserError(f"{folder / course.name}: runs that cannot be compared: {'; '.join(other[:3])}")
    for name, mine in found.items():
        of = mine[0].settings
        for run in runs(course, [name], [result.seed for result in mine], of["seconds"], of["threads"]):
            is_done(run, folder)
    return found
