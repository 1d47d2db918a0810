"""Read the evaluations that a run has written so far."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_lightning.evaluation.conditions import Conditions
from rl_lightning.types import UserError

Row = dict[str, Any]
"""One problem of an evaluation, as `result_rows` makes it."""

Key = tuple[str, int]
"""A row's task and index."""

_NAME = re.compile(r"eval_step_(\d+)\.json")


@dataclass(frozen=True)
class Evaluation:
    """The part of an evaluation that later ones are compared with.

    Attributes:
        step: the optimizer step.
        suite: hash of the suite.
        accuracy: mean over all problems, in [0, 1].
        rows: `exact` and `partial` of each problem.
        ran_with: its conditions; empty where the file has none.
    """

    step: int
    suite: str
    accuracy: float
    rows: dict[Key, Row]
    ran_with: Conditions


def read_result(path: Path) -> dict[str, Any]:
    """Read a complete evaluation file.

    Raises:
        UserError: the file is not an evaluation.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        summary(found)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not an evaluation of rl_lightning ({error}); move it away") from error
    return dict(found)


def summary(result: Mapping[str, Any]) -> Evaluation:
    """Return the part of an evaluation file that later ones are compared with."""
    rows = {(r["task"], r["index"]): {"exact": r["exact"], "partial": r["partial"]} for r in result["rows"]}
    return Evaluation(result["step"], result["suite"], result["overall"]["accuracy"], rows, result.get("ran_with", {}))


class PastEvaluations:
    """The evaluations in a run's `eval_results`; each file is read once.

    Args:
        directory: the run's `eval_results`.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._read = directory, dict[int, Evaluation]()

    def before(self, step: int) -> list[Evaluation]:
        """Return those of earlier steps, lowest step first."""
        names = (_NAME.fullmatch(path.name) for path in self._directory.glob("eval_step_*.json"))
        steps = sorted(int(name[1]) for name in names if name)
        for earlier in steps:
            if earlier < step and earlier not in self._read:
                self._read[earlier] = summary(read_result(self._directory / f"eval_step_{earlier}.json"))
        return [self._read[earlier] for earlier in steps if earlier < step]
