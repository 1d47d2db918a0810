"""Read what a run has written."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from rl_lightning.types import UserError


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The run's evaluations, first step first.

    Raises:
        UserError: there is none.
    """
    files = (run / "eval_results").glob("eval_step_*.json")
    found = sorted((json.loads(f.read_text(encoding="utf-8")) for f in files), key=lambda e: e["step"])
    if not found:
        raise UserError(f"{run}: no evaluation in it (eval_results/eval_step_*.json); is it a run directory?")
    return found


def series(run: Path, name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric of `metrics.csv`; empty where it was never logged."""
    path = run / "metrics.csv"
    if not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(float(row["step"]), float(row[name])) for row in csv.DictReader(file) if row.get(name)]
    return [step for step, _ in rows], [value for _, value in rows]
