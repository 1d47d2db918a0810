"""What is to be compared, and the evaluation that stands for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_lightning.evaluation.past import read_result
from rl_lightning.evaluation.suite import differences, stored_suite
from rl_lightning.types import UserError

BASE = "base"
"""The name under which the model without adapters takes part."""

_REMEDY = "to ask all of them the same, add: --evaluate --config CONFIG.yaml"


@dataclass(frozen=True)
class Subject:
    """One side of a comparison.

    Attributes:
        label: what the user called it.
        path: its evaluation file.
        result: what is in it.
    """

    label: str
    path: Path
    result: dict[str, Any]


def find_subjects(names: Sequence[str]) -> list[Subject]:
    """The evaluation of each name: a run's newest, a checkpoint's at its step, a file itself; `base` is step 0 of the first run.

    Raises:
        UserError: a name without an evaluation, or two that were not asked the same.
    """
    paths = {name: _evaluation_file(name) for name in names if name != BASE}
    if BASE in names:
        if not paths:
            raise UserError(f"compare: {BASE} needs a run beside it, whose step 0 it is; {_REMEDY}")
        path = next(iter(paths.values())).with_name("eval_step_0.json")
        if not path.is_file():
            raise UserError(f"compare: {BASE}: there is no {path}; {_REMEDY}")
        paths[BASE] = path
    subjects = [Subject(name, paths[name], read_result(paths[name])) for name in names]
    for other in subjects[1:]:
        _refuse_other_suite(subjects[0], other)
    return subjects


def _evaluation_file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix == ".json" and path.is_file():
        return path
    found = sorted((path / "eval_results").glob("eval_step_*.json"), key=_step)
    if found:
        return found[-1]
    step = path.name.removeprefix("checkpoint-")
    if path.is_dir() and step.isdigit():
        results = (path.parent if path.name.startswith("checkpoint-") else path.resolve().parent) / "eval_results"
        for kind in ("eval", "validate"):
            if (file := results / f"{kind}_step_{step}.json").is_file():
                return file
        raise UserError(f"compare: {name} was not evaluated at its step; {_REMEDY}")
    found = sorted((path / "eval_results").glob("validate_step_*.json"), key=_step)
    if found:
        return found[-1]
    raise UserError(
        f"compare: {name!r} is neither a run directory with evaluations, nor a run's checkpoint, nor an evaluation file, nor "
        f"`{BASE}`; {_REMEDY}"
    )


def _step(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.stem.split("_")[2:])


def _refuse_other_suite(one: Subject, other: Subject) -> None:
    if one.result["suite"] == other.result["suite"]:
        return
    suites = [stored_suite(each.path.parent, each.result["suite"]) for each in (one, other)]
    said = differences(suites[0], suites[1]) if suites[0] and suites[1] else ["a suite was not stored beside it"]
    raise UserError(f"compare: {one.label} and {other.label} were not asked the same: {'; '.join(said)}; {_REMEDY}")
