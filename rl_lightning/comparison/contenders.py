"""Find the evaluation to use for each run, checkpoint or model to be compared, and refuse those of different suites."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_lightning.evaluation import Suite, differences, read_result, stored_suite
from rl_lightning.types import UserError

BASE = "base"
"""The name of the model before training."""

_REMEDY = "to evaluate all of them on the same problems, add: --evaluate --config CONFIG.yaml"


@dataclass(frozen=True)
class Contender:
    """A run, checkpoint or model that takes part in a comparison.

    Attributes:
        label: what the user called it.
        path: its evaluation file.
        result: the content of that file.
        suite: what was evaluated, as it is stored beside the file; None where it is not.
    """

    label: str
    path: Path
    result: dict[str, Any]
    suite: Suite | None = None


def find_contenders(names: Sequence[str]) -> list[Contender]:
    """Find the evaluation file of each name.

    Args:
        names: each a run directory (its newest evaluation is used), a checkpoint (the evaluation at its step), an evaluation file,
            or `base` (step 0 of the first run, which must have begun from the base).

    Raises:
        UserError: a name has no evaluation, or two of them are of different suites.
    """
    paths = {name: _evaluation_file(name) for name in names if name != BASE}
    if BASE in names:
        if not paths:
            raise UserError(f"compare: {BASE} is step 0 of a run, so name a run too; {_REMEDY}")
        path = next(iter(paths.values())).with_name("eval_step_0.json")
        if not path.is_file():
            raise UserError(f"compare: {BASE}: there is no {path}; {_REMEDY}")
        if (adapter := read_result(path).get("began_from")) is not None:
            raise UserError(f"compare: {BASE}: the run began from {adapter}, so its step 0 is not the base; {_REMEDY}")
        paths[BASE] = path
    contenders = [_contender(name, paths[name]) for name in names]
    for other in contenders[1:]:
        _refuse_other_suite(contenders[0], other)
    return contenders


def _contender(name: str, path: Path) -> Contender:
    result = read_result(path)
    return Contender(name, path, result, stored_suite(path.parent, result["suite"]))


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
    """Return the step in the name, and the number of the copy where there are several, as a sort key."""
    return tuple(int(part) for part in path.stem.split("_")[2:])


def _refuse_other_suite(one: Contender, other: Contender) -> None:
    if one.result["suite"] == other.result["suite"]:
        return
    said = differences(one.suite, other.suite) if one.suite and other.suite else ["a suite was not stored with it"]
    raise UserError(
        f"compare: {one.label} and {other.label} were evaluated on different suites: {'; '.join(said)}; {_REMEDY}"
    )
