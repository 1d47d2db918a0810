"""Read the results that runs leave, and refuse those that cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ablation.experiments import Experiment, Run, runs
from rl_lightning.environments import Questions
from rl_lightning.types import UserError

_SHARED = ("suite", "seconds", "every", "threads")
"""Settings that must be the same for all runs of a table."""

_ADDED: dict[str, Any] = {
    "data.answer_format": "tags",
    "data.chat_template_kwargs": {},
    "data.examples": 0,
    "data.examples_for": "all_steps",
    "data.own_examples": {},
    "data.prefill": "",
    "data.prompt_template": "",
    "model.policy.adapter": None,
    "model.policy.devices_per_replica": 1,
    "model.policy.init_lora_weights": True,
    "model.policy.lora_dropout": 0.0,
    "model.policy.lora_target_modules": None,
    "model.policy.reference": "base",
    "model.policy.self_test": True,
    "model.policy.use_rslora": False,
    "model.reward.init_args.format_grading": "strict",
    "model.sft_steps": 0,
}
"""Settings that older results lack, with the value by which a run does what it did before there was the setting."""

_ADDED_OF_A_TASK = {each.name for each in fields(Questions)}
"""The same of each of `data.datasets`, whose tasks are reasoning-gym's."""


@dataclass(frozen=True)
class Result:
    """One run's file.

    Attributes:
        seed: the run's seed.
        settings: the run's settings.
        evaluations: see `ablation.run.Evaluator`.
        machine: what it ran on; see `machine.machine_info`.
    """

    seed: int
    settings: dict[str, Any]
    evaluations: list[dict[str, Any]]
    machine: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> Result:
        """The result in a file.

        Raises:
            UserError: there is none in it.
        """
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            return cls(found["settings"]["model"]["seed"], *(found[k] for k in ("settings", "evaluations", "machine")))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file}: not a run's result ({error}); move it away") from error

    def accuracy(self, axis: str, at: float) -> float:
        """Held-out accuracy at a given value of `axis` (seconds or sampled), interpolated linearly between evaluations."""
        return float(np.interp(at, self.column(axis), self.column("accuracy")))

    def mean_accuracy(self, axis: str, until: float) -> float:
        """Its mean from the start up to that value: the earlier a run learns, the higher."""
        points = self.column(axis)
        grid = np.append(points[points < until], until)
        return float(np.trapezoid(np.interp(grid, points, self.column("accuracy")), grid) / until)

    def column(self, name: str) -> Any:
        """One value of all evaluations, as an array."""
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
        UserError: there is one with other settings.
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
            if key not in before and key in _ADDED_OF_A_TASK and not now.get("path", True):
                continue
            yield from _differences(before.get(key, _ADDED.get(inner, "not set")), now.get(key, "not set"), inner)
    elif before != now:
        yield f"{name} was {before} and is {now}"


def results_of(experiment: Experiment, folder: Path) -> dict[str, list[Result]]:
    """All available results of an experiment, by variant, in the experiment's order; a variant without any is left out.

    Raises:
        UserError: they were not evaluated on the same problems, or did not have the same time, or have settings that the
            experiment no longer has.
    """
    found: dict[str, list[Result]] = {}
    for name in experiment.variants:
        files = (folder / experiment.name).glob(f"{name}_seed_*.json")
        mine = [Result.read(file) for file in files if file.stem.removeprefix(f"{name}_seed_").isdigit()]
        if mine:
            found[name] = sorted(mine, key=lambda result: result.seed)
    together = [result for mine in found.values() for result in mine]
    for result in together:
        first, this = ({key: r.settings[key] for key in _SHARED} for r in (together[0], result))
        if other := list(_differences(first, this)):
            raise UserError(f"{folder / experiment.name}: runs that cannot be compared: {'; '.join(other[:3])}")
    for name, mine in found.items():
        settings = mine[0].settings
        for run in runs(experiment, [name], [result.seed for result in mine], settings["seconds"], settings["threads"]):
            is_done(run, folder)
    return found
