"""Read experiments from configs/ablations/: what differs from the quickstart, in which variants, and the runs that follow."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from benchmark.learning import quickstart
from run_config import resolve_settings

from rl_lightning.types import UserError, require

FOLDER = Path(__file__).parents[2] / "configs" / "ablations"

Changes = dict[str, Any]
"""Dotted name of a setting of the quickstart, such as model.objective.surrogate, to its value here."""


@dataclass(frozen=True)
class Experiment:
    """One file of configs/ablations/: variants that are compared on the same held-out problems.

    Attributes:
        name: the file's name.
        about: the question that it answers, in a sentence.
        seconds: seconds of training per run.
        every: training steps between two evaluations; at least 1.
        base: settings that differ from the quickstart in all variants. The held-out problems are those of its tasks.
        variants: variant name to the settings that differ from the base; the others are compared with the first.
    """

    name: str
    about: str
    seconds: float
    every: int
    base: Changes
    variants: dict[str, Changes]

    @classmethod
    def read(cls, name: str) -> Experiment:
        """The shipped experiment of that name, or the one in that .yaml file.

        Raises:
            UserError: there is none, or the file holds something else.
        """
        file = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
        if not file.is_file():
            raise UserError(f"{name!r} is not an experiment; {nearest(name, names())}there are: {', '.join(names())}")
        try:
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise UserError(f"{file}: not YAML: {' '.join(str(error).split())}") from error
        wanted = [field.name for field in fields(cls) if field.name != "name"]
        if not isinstance(found, dict) or sorted(found) != sorted(wanted):
            raise UserError(f"{file}: an experiment has the keys {', '.join(wanted)}, and no others")
        for key in ("base", "variants"):
            found[key] = found[key] or {}
            require(f"{file}: {key}", found[key], isinstance(found[key], dict), "names and values")
        for variant, changes in found["variants"].items():
            found["variants"][variant] = changes or {}
            require(f"{file}: {variant}", changes, isinstance(changes or {}, dict), "dotted names and values, or {}")
        for key in ("every", "seconds"):
            value = found[key]
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
            require(f"{file}: {key}", value, number, "a number above 0")
        require(f"{file}: every", found["every"], found["every"] == int(found["every"]), "a whole number")
        require(f"{file}: variants", found["variants"], bool(found["variants"]), "at least one")
        return cls(file.stem, **found | {"about": str(found["about"] or "")})

    def select_variants(self, variants: Collection[str]) -> list[str]:
        """These variants, or all, in the experiment's order.

        Raises:
            UserError: one that is not there.
        """
        for name in variants:
            if name not in self.variants:
                hint = nearest(name, self.variants)
                raise UserError(f"{self.name} has no variant {name!r}; {hint}there are: {', '.join(self.variants)}")
        return [name for name in self.variants if name in variants or not variants]


@dataclass(frozen=True)
class Run:
    """A variant with a seed.

    Attributes:
        experiment: its name.
        variant: its name.
        seed: the seed for adapters, sampling and the stream of problems.
        settings: all that its result depends on besides the machine: `model` and `data` in full; `suite`, the problems of
            its evaluations; `seconds`, `every`, `threads`.
    """

    experiment: str
    variant: str
    seed: int
    settings: dict[str, Any]

    @property
    def label(self) -> str:
        """Its human-readable name."""
        return f"{self.variant}, seed {self.seed}"

    def file(self, folder: Path) -> Path:
        """Where its result is kept."""
        return folder / self.experiment / f"{self.variant}_seed_{self.seed}.json"


def names() -> list[str]:
    """The shipped experiments."""
    return sorted(file.stem for file in FOLDER.glob("*.yaml"))


def runs(
    experiment: Experiment, variants: Sequence[str], seeds: Sequence[int], seconds: float, threads: int
) -> list[Run]:
    """All variants with the first seed, then with the next one, so that changes on the machine affect all variants equally.

    Raises:
        UserError: a setting that does not exist.
    """
    base = with_changes(quickstart(), experiment.base, f"{experiment.name}: base")
    target = _resolve(base, f"{experiment.name}: base")["data"]
    suite = {
        "datasets": {name: spec["config"] for name, spec in target["datasets"].items()},
        "problems": target["eval_num_samples"],
        "seed": target["eval_seed"],
    }
    limits = {"suite": suite, "seconds": seconds, "every": experiment.every, "threads": threads}
    settings = {}
    for name in variants:
        where = f"{experiment.name}: {name}"
        settings[name] = _resolve(with_changes(base, experiment.variants[name], where), where)
        data = settings[name]["data"]
        if lost := sorted(suite["datasets"].keys() - data["datasets"].keys()):
            raise UserError(f"{where}: data.datasets lacks {', '.join(lost)}, on which all variants are evaluated")
        for key in ("system_prompt", "answer_format", "examples", "own_examples", "prefill", "prompt_template"):
            require(f"{where}: data.{key}", data[key], data[key] == target[key], "the base's")
    return [
        Run(experiment.name, name, seed, _with_seed(settings[name], seed) | limits)
        for seed in seeds
        for name in variants
    ]


def _resolve(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        return resolve_settings(config, seed=0)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _with_seed(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    return {section: {**values, "seed": seed} for section, values in settings.items()}


def with_changes(config: Mapping[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A copy of a config in which some settings have other values.

    Args:
        config: nested.
        changes: by dotted names.
        where: for the message.

    Raises:
        UserError: a name that leads outside of `model` and `data`, or into a value.
    """
    found = copy.deepcopy(dict(config))
    for name, value in changes.items():
        *path, last = name.split(".")
        require(where, name, path[:1] in (["model"], ["data"]), "a setting that begins with model. or data.")
        at: Any = found
        for step in path:
            at = at.setdefault(step, {})
            require(where, name, isinstance(at, dict), f"a setting; {step} is a value and has none within")
        at[last] = copy.deepcopy(value)
    return found


def nearest(name: str, known: Collection[str]) -> str:
    """ "did you mean …? ", or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""
