"""Read the files of a run that has ended, is still running, or was killed."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rl_lightning.checkpointing.atomic_files import newest
from rl_lightning.checkpointing.secrets import secret_names, without_secrets
from rl_lightning.types import UserError

_OF_A_RUN = ("config.yaml", "metrics.csv", "eval_results", "rollouts")


@dataclass(frozen=True)
class Run:
    """A run directory as it is now; each part is read when it is first used.

    Args:
        path: the directory.
        name: what the page calls it.
    """

    path: Path
    name: str

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """The contents of `eval_results/eval_step_N.json`, lowest step first; may be empty."""
        files = (self.path / "eval_results").glob("eval_step_*.json")
        needed = ("step", "overall", "tasks")
        return sorted((_json(f.read_text(encoding="utf-8"), f, needed) for f in files), key=lambda e: e["step"])

    @cached_property
    def questions(self) -> dict[tuple[str, int], tuple[str, str | None]]:
        """Question and expected answer of the last evaluation's problems by task and index, from its `suite.json`; may be empty."""
        for path in sorted((self.path / "eval_results").glob("suite*.json")):
            suite = _json(path.read_text(encoding="utf-8"), path, ("hash", "problems"))
            if self.evaluations and suite["hash"] == self.evaluations[-1].get("suite"):
                return {(p["task"], p["index"]): (p["question"], p["expected"]) for p in suite["problems"]}
        return {}

    @cached_property
    def metrics(self) -> dict[str, tuple[list[int], list[float]]]:
        """Every metric of `metrics.csv` to its steps and values, which may be NaN or infinite."""
        path = self.path / "metrics.csv"
        if not path.is_file():
            return {}
        text = newest(path).read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a kill may have cut the last row
        found: dict[str, tuple[list[int], list[float]]] = {}
        for row in csv.DictReader(io.StringIO(whole)):
            if "step" not in row:
                raise UserError(f"{path}: no column 'step', so these are not the metrics of a run; move it away")
            step = int(float(row.pop("step")))
            for name, value in row.items():
                if value:
                    steps, values = found.setdefault(name, ([], []))
                    steps.append(step)
                    values.append(float(value))
        return found

    @cached_property
    def warnings(self) -> list[dict[str, Any]]:
        """The lines of `warnings.jsonl`: step, name, text; may be empty."""
        path = self.path / "warnings.jsonl"
        if not path.is_file():
            return []
        text = newest(path).read_text(encoding="utf-8")
        needed = ("step", "name", "text")
        return [_json(line, path, needed) for line in text[: text.rfind("\n") + 1].splitlines() if line.strip()]

    @cached_property
    def config(self) -> str:
        """`config.yaml` as text, with "(left out)" for each setting that looks like a secret; empty if there is none."""
        path = self.path / "config.yaml"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        settings = yaml.safe_load(text) if text else {}
        if next(secret_names(settings), None) is None:
            return text
        return yaml.safe_dump(without_secrets(settings), sort_keys=False, allow_unicode=True, width=120)

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps that are made with one rollout, `model.objective.num_iterations`; 1 without a `config.yaml`."""
        config = yaml.safe_load(self.config) if self.config else {}
        return int(config.get("model", {}).get("objective", {}).get("num_iterations", 1))

    @property
    def missing(self) -> list[str]:
        """What the run has not written, and what can therefore not be shown; a sentence each."""
        found = {
            "no evaluation (eval_results/): held-out accuracy, and the answers before and after, cannot be shown": self.evaluations,
            "no metrics (metrics.csv): the charts of training cannot be shown": self.metrics,
            "no rollouts (rollouts/): the completions cannot be shown": self.rollout_files,
            "no settings (config.yaml): they cannot be shown": self.config,
        }
        return [what for what, there in found.items() if not there]

    @cached_property
    def results(self) -> dict[str, Any] | None:
        """The content of `train_results.json`, which a run writes at its end; else None."""
        path = self.path / "train_results.json"
        return _json(path.read_text(encoding="utf-8"), path, ("step", "seconds")) if path.is_file() else None

    @property
    def rollout_files(self) -> list[Path]:
        """The files `rollouts/rollouts_FIRST-LAST.parquet` in the order of their steps."""
        return sorted((self.path / "rollouts").glob("rollouts_*.parquet"))

    @property
    def last_step(self) -> int:
        """The highest step that any metric or evaluation was written for."""
        steps = [steps[-1] for steps, _ in self.metrics.values()]
        return max([*steps, *(e["step"] for e in self.evaluations)], default=0)

    def recent(self, metric: str, last: int = 20) -> float | None:
        """Return the mean of a metric's last finite values; None if it was never logged."""
        values = [v for v in self.metrics.get(metric, ([], []))[1][-last:] if math.isfinite(v)]
        return sum(values) / len(values) if values else None


def read_runs(paths: list[Path]) -> list[Run]:
    """Open run directories, and give each run a short name that no other has.

    Raises:
        UserError: a path is not a run directory.
    """
    resolved = [path.resolve() for path in paths]
    for path, given in zip(resolved, paths, strict=True):
        if not path.is_dir():
            raise UserError(f"{given}: there is no such directory; give run directories, such as outputs/quickstart")
        if not any((path / name).exists() for name in _OF_A_RUN):
            raise UserError(f"{given}: nothing of a run in it (none of {', '.join(_OF_A_RUN)})")
        if resolved.count(path) > 1:
            raise UserError(f"{given}: given twice")
    names = [path.name for path in resolved]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{path.name}" for path in resolved]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    # The path as it was given, not resolved: a page may be sent to somebody.
    return [Run(path, name) for path, name in zip(paths, names, strict=True)]


def evaluations(run: Path) -> list[dict[str, Any]]:
    """Return the run's evaluations, lowest step first.

    Raises:
        UserError: there is none.
    """
    found = Run(run, run.name).evaluations
    if not found:
        raise UserError(f"{run}: no evaluation in it (eval_results/eval_step_*.json); is it a run directory?")
    return found


def series(run: Path, name: str) -> tuple[list[int], list[float]]:
    """Return the steps and values of one metric of `metrics.csv`; empty if it was never logged."""
    return Run(run, run.name).metrics.get(name, ([], []))


def _json(text: str, path: Path, needed: tuple[str, ...]) -> Any:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); move it away") from error
    if not isinstance(found, dict) or (missing := [name for name in needed if name not in found]):
        what = f"no {', '.join(missing)}" if isinstance(found, dict) else "no object"
        raise UserError(f"{path}: {what} in it, so it is not a file of a run; move it away")
    return found
